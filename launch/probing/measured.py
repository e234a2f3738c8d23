"""All that `isoflop probe` measures of a run, beside another one if it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import specs_of
from data.kinds.unlearning import statements
from launch.alive import bar
from launch.evaluation.scored_model import ScoredModel, open_model
from launch.files import read_config
from launch.probing import association, facts, files, other_text, pairs
from launch.vectors.word_vectors import open_vectors

Show = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """The flags of the verb; "" for what is not asked."""

    pairs: str
    weat: str
    facts: str
    text: str
    documents: int
    draws: int
    seed: int


def probed(run: Path, before: Path | None, asked: Asked, show: Show) -> dict[str, Any]:
    """What --json writes. ValueError or FileNotFoundError, in one line, for what cannot be read."""
    about: dict[str, Any] = {"run": str(run), "before": str(before) if before else None}
    of_pairs = files.pairs(asked.pairs) if asked.pairs else []
    of_words = files.word_sets(asked.weat) if asked.weat else []
    told = (read_config(before or run) or {}).get("data", {})  # of the run that read the facts
    share = float(told.get("validation", 0.0))
    of_facts = files.facts(asked.facts, share) if asked.facts else []
    unread = ""
    if of_facts and before:
        of_facts, unread = _with_unlearned(of_facts, run)
    texts = other_text.documents(asked.text, asked.documents) if asked.text else []
    if of_pairs or of_facts or texts:
        show("loading")
        models = [open_model(place, any_objective=True) for place in (run, before) if place]
        about["step"] = models[0].step
        _require_one_tokenizer(models)
    again = asked.draws, asked.seed
    if of_pairs:
        found = [pairs.differences(m, of_pairs, _progress(show, "pairs", m)) for m in models]
        about["pairs"] = {"file": asked.pairs} | pairs.measured(of_pairs, *_two(found), *again)
    if of_words:
        show("words")
        of_run = [association.measured(open_vectors(place), of_words, asked.seed)
                  for place in (run, before) if place]  # fmt: skip
        about["weat"] = {"file": asked.weat, "tests": of_run[0]}
        if before:
            about["weat"]["before"] = of_run[1]
    if of_facts:
        asked_for, of_facts = len(of_facts), facts.known_facts(models[0], of_facts)
        found = [facts.answers(m, of_facts, _progress(show, "facts", m)) for m in models]
        show("intervals")
        corpora = told.get("corpora", ())
        corpora = [corpora] if isinstance(corpora, str) else list(corpora)
        other = {
            "file": asked.facts,
            "left_out": asked_for - len(of_facts),
            "of_another_world": files.of_another_world(asked.facts, corpora),
            "worlds_of_run": [name for name in corpora if files.is_world(name)],
            "unlearned_unread": unread,
        }
        about["facts"] = other | facts.measured(of_facts, *_two(found), *again)
    if texts:
        show("text")
        found = [other_text.nats(model, texts) for model in models]
        about["text"] = other_text.measured(asked.text, *_two(found), *again)
    return about


def _with_unlearned(facts: list[files.Question], run: Path) -> tuple[list[files.Question], str]:
    """The facts, with what the run unlearned if that was its objective, and why it cannot be read
    or ""."""
    config = read_config(run) or {}
    if config.get("data", {}).get("kind") != "unlearning":
        return facts, ""
    try:
        prompts = statements.prompts(specs_of(config["data"]["forget"]))
    except (FileNotFoundError, ValueError) as error:
        return facts, str(error)
    return files.with_unlearned(facts, prompts), ""


def _two(found: list) -> tuple[Any, Any]:
    return found[0], found[1] if len(found) > 1 else None


def _progress(show: Show, what: str, model: ScoredModel) -> Callable[[float], None]:
    return lambda share: show(f"{what} of {model.run.name} {bar(share)}")


def _require_one_tokenizer(models: list[ScoredModel]) -> None:
    prints = {model.tokenizer.fingerprint for model in models}
    if len(prints) > 1:
        raise ValueError(
            f"before={models[1].run} has another tokenizer than {models[0].run}, so their nats "
            "cannot be compared; use two runs of one tokenizer"
        )
