"""Scores of translations against references: BLEU, chrF and exact match."""

from collections.abc import Sequence
from typing import Any


def require() -> None:
    """ValueError if sacrebleu, which computes BLEU and chrF, is not installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise ValueError(
            "--references needs the package sacrebleu; pip install 'isoflop[translate]'"
        ) from None


def scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015) of the whole, by sacrebleu (Post 2018)
    with its signatures, and the share of outputs that equal their reference."""
    import sacrebleu

    found = {}
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        score = metric.corpus_score(list(outputs), [list(references)]).score
        found[name] = {"score": score, "signature": str(metric.get_signature())}
    same = [same_words(a, b) for a, b in zip(outputs, references, strict=True)]
    return found | {"exact_match": sum(same) / len(same), "sentences": len(same)}


def same_words(output: str, reference: str) -> bool:
    """Whether a translation is right in every word."""
    return output.split() == reference.split()
