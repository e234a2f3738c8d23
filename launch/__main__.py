"""The command line: `isoflop VERB …` imports the module of that verb and runs its `main`."""

import codecs
import difflib
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterable
from types import ModuleType

from launch.errors import BAD_INPUT, BUG, PREEMPTED, BadInput, disk_full, no_space

# verb -> (its folder in launch/verbs/, what it does). Each verb is a module of its name there, with
# `main(argv: list[str]) -> int`, an exit code, and `make_flags()`.
VERBS = {
    "train": ("models", "train one model"),
    "sweep": ("models", "train many models, predict the held-out one, fit the law"),
    "cluster": ("machines", "machines for sweeps: SkyPilot, GKE, SLURM, Cloud TPU"),
    "runs": ("results", "list the trials of a folder: status, settings, losses"),
    "show": ("results", "show everything about one run, with its curves"),
    "rank": ("results", "which configuration of a sweep is best, and what each key does"),
    "report": ("results", "write the page of a sweep, or serve it while trials run"),
    "fit": ("results", "fit a scaling law to runs or to a CSV, write the report"),
    "predict": ("results", "predict a run's loss before training it, and record it"),
    "compare": ("results", "compare the compute that ladders need for equal loss"),
    "phases": ("results", "what each phase of post-training brought, on a page"),
    "overoptimisation": ("results", "how a gold reward rises and falls as a proxy is optimised"),
    "plan": ("results", "choose model size and tokens for a budget"),
    "pilot": ("models", "choose a ladder's sizes and learning rates by cheap runs"),
    "export": ("results", "write runs for wandb, trackio, MLflow or as CSV"),
    "sample": ("models", "continue a prompt with a trained model"),
    "chat": ("texts", "talk with a trained model, in the terminal or over HTTP"),
    "translate": ("models", "translate with a model trained on pairs of sentences"),
    "evaluate": ("models", "score a model on any text, or by its answers to tasks"),
    "score": ("models", "the probability of sentences, and which is likelier"),
    "compress": ("texts", "compress a file with the model of a run"),
    "decompress": ("texts", "give back a file that compress has compressed"),
    "inspect": ("texts", "look inside a model: what it makes of a text, on one page"),
    "neighbours": ("models", "words near a word, analogies, a map of words"),
    "fill": ("texts", "fill the masks of a text with a masked encoder"),
    "classify": ("texts", "classify texts with a trained classifier"),
    "rewards": ("texts", "what reward models say of answers that a rule has judged"),
    "convert": ("models", "import or export Hugging Face weights"),
    "compile": ("models", "compile a config for a TPU slice, without a TPU"),
    "ngram": ("models", "score an n-gram model on the validation text of a config"),
    "index": ("texts", "an index of texts: BM25, vectors, states; for retrieval"),
    "clean": ("texts", "clean raw text: rules, duplicates, personal data"),
    "tokenize": ("models", "train a tokenizer, write the token shards of a corpus"),
}


def module_of(verb: str) -> ModuleType:
    """The module of a verb."""
    return importlib.import_module(f"launch.verbs.{VERBS[verb][0]}.{verb}")


def with_dashes(message: str, flags: Iterable[str]) -> str:
    """`message` with --NAME=… for each NAME=… of a flag: functions that verbs call name their
    arguments so, whoever calls them."""
    return re.sub(rf"(?<!\S)(?=(?:{'|'.join(flags)})=)", "--", message)


def usage() -> str:
    """What `isoflop --help` prints."""
    from launch.flags import EXECUTED  # slow to import

    verbs = "\n".join(f"  {verb:<16} {line}" for verb, (_, line) in VERBS.items())
    return (
        f"isoflop VERB [--flag=value …]\n\n{verbs}\n\nisoflop VERB --help lists its flags.\n"
        f"{EXECUTED}\nSo does a file of --import. Weights, tokenizers and runs are only read; the "
        "imports/ that a run\nkeeps are executed only if you name them, or resume that run."
    )


def main(argv: list[str]) -> int:
    """Runs `argv` = [verb, flags …]; returns the exit code. Bad input becomes one line."""
    if not argv or argv[0] in ("-h", "--help", "-help", "help"):
        print(usage())
        return 0 if argv else BAD_INPUT
    verb, *rest = argv
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(VERBS)}"
        print(f"isoflop: unknown verb {verb!r}; {hint}", file=sys.stderr)
        return BAD_INPUT
    try:
        return module_of(verb).main(rest)
    except BadInput as error:
        known = module_of(verb).make_flags()
        line = f"isoflop {verb}: {with_dashes(str(error), known)}"
        print(*filter(None, (line, error.details)), sep="\n", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"isoflop {verb}: interrupted; run it again", file=sys.stderr)
        return PREEMPTED
    except OSError as error:
        if not disk_full(error):
            raise
        print(f"isoflop {verb}: {no_space(error)}", file=sys.stderr)
        return BAD_INPUT


# What stands for a character that the terminal's encoding lacks; "?" for any other.
_PLAIN = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "Delta", "λ": "lambda"},
    **{"∝": "~", "×": "x", "·": "*", "±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt"},
    **{"—": "-", "–": "-", "−": "-", "…": "...", "→": "->", "“": '"', "”": '"', "’": "'"},
}


def replace_unknown_characters() -> None:
    """Lets stdout and stderr of this process and its children show any text: characters that their
    encoding lacks are replaced."""

    def plain(error: UnicodeEncodeError) -> tuple[str, int]:
        unknown = error.object[error.start : error.end]
        return "".join(_PLAIN.get(character, "?") for character in unknown), error.end

    codecs.register_error("plain", plain)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="plain")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:replace"


def _end_at_once(number: int, frame: object) -> None:
    os.write(2, b"isoflop: ended by SIGTERM; run it again\n")
    os._exit(PREEMPTED)


def entry() -> None:
    """The console command `isoflop`."""
    try:
        # Before the slow imports: they take seconds, and until a verb handles signals there is
        # nothing to save.
        signal.signal(signal.SIGTERM, _end_at_once)
        replace_unknown_characters()
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # before a verb has begun
        os.write(2, b"isoflop: interrupted; run it again\n")
        os._exit(PREEMPTED)
    except BrokenPipeError:  # as in `isoflop … | head`: the reader is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BUG)


if __name__ == "__main__":
    entry()
