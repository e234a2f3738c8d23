"""The command line: `isoflop VERB …` imports the module of that verb and runs its `main`."""

import codecs
import difflib
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterable

from launch.errors import BAD_INPUT, BUG, PREEMPTED, BadInput, disk_full, no_space

# verb -> (module, what it does). Each module has `main(argv: list[str]) -> int`, an exit code.
VERBS = {
    "train": ("launch.verbs.train", "train one model"),
    "sweep": ("launch.verbs.sweep", "train many models, predict the held-out one, fit the law"),
    "runs": ("launch.verbs.runs", "list the trials of a folder: status, settings, losses"),
    "show": ("launch.verbs.show", "show everything about one run, with its curves"),
    "rank": ("launch.verbs.rank", "which configuration of a sweep is best, and what each key does"),
    "report": ("launch.verbs.report", "write the page of a sweep, or serve it while trials run"),
    "fit": ("launch.verbs.fit", "fit a scaling law to runs or to a CSV, write the report"),
    "predict": ("launch.verbs.predict", "predict a run's loss before training it, and record it"),
    "compare": ("launch.verbs.compare", "compare the compute that ladders need for equal loss"),
    "plan": ("launch.verbs.plan", "choose model size and tokens for a budget"),
    "pilot": ("launch.verbs.pilot", "choose a ladder's sizes and learning rates by cheap runs"),
    "export": ("launch.verbs.export", "write runs for wandb, trackio, MLflow or as CSV"),
    "sample": ("launch.verbs.sample", "continue a prompt with a trained model"),
    "evaluate": ("launch.verbs.evaluate", "score a model on any text, beside an n-gram model"),
    "convert": ("launch.verbs.convert", "import or export Hugging Face weights"),
    "compile": ("launch.verbs.compile", "compile a config for a TPU slice, without a TPU"),
    "ngram": ("launch.verbs.ngram", "score an n-gram model on the validation text of a config"),
    "tokenize": ("launch.verbs.tokenize", "train a tokenizer, write the token shards of a corpus"),
}


def with_dashes(message: str, flags: Iterable[str]) -> str:
    """`message` with --NAME=… for each NAME=… of a flag: functions that verbs call name their
    arguments so, whoever calls them."""
    return re.sub(rf"(?<!\S)(?=(?:{'|'.join(flags)})=)", "--", message)


def usage() -> str:
    """What `isoflop --help` prints."""
    from launch.flags import EXECUTED  # slow to import

    verbs = "\n".join(f"  {verb:<9} {line}" for verb, (_, line) in VERBS.items())
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
        return importlib.import_module(VERBS[verb][0]).main(rest)
    except BadInput as error:
        known = importlib.import_module(VERBS[verb][0]).make_flags()
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
    # Before the slow imports: they take seconds, and until a verb handles signals there is nothing
    # to save.
    signal.signal(signal.SIGTERM, _end_at_once)
    replace_unknown_characters()
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # as in `isoflop … | head`: the reader is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BUG)


if __name__ == "__main__":
    entry()
