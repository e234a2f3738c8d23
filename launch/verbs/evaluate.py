"""isoflop evaluate: scores the model of a run on any text, beside an n-gram model.

isoflop evaluate --run=runs/first
isoflop evaluate --run=runs/first --data=book.txt
isoflop evaluate --run=runs/llama --data=web.jsonl --max_bytes=1M --stride=512

Prints nats per token and bits per byte with standard errors, the loss by position in the context,
and the documents that the model predicts worst and best. --data takes what data.corpora takes:
stdlib, a file, a folder, .jsonl, .parquet, hf:NAME, synthetic. Without --data the text is the
validation set of the run, and the loss is the eval_loss of its result.json.

Each document of --data stands by itself: it begins after the tokens that the model expects before a
text, otherwise after the end of a document, and its own end is scored too. A document that is
longer than --context is cut in windows that begin every --stride tokens. Every token is scored
once, in the first window that has it: with the default stride the windows do not overlap, as in
training, and with a smaller one each token has at least context - stride tokens before it.

The n-gram model is counted, as `isoflop ngram` does, on the text that the run was trained on, with
its tokenizer. It sees the whole document before each token. Standard errors and the difference
between the models take documents as the independent units.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing
from launch.files import read_json, write_json

MOST_CONTEXT = 2048  # tokens of a window by default
SHOWN = 5  # worst and best documents
WORTH = 50  # tokens of a document that is shown among them, if there are enough


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path("run", None, "folder of the run: finished, stopped or converted", values)
    text("data", None, "text to score; default: the validation set of the run", values)
    text("text_key", None, "data: key of a row's text; default: the run's data.text_key", values)
    flags.define_amount("max_bytes", 0, "data: bytes of text to score; 0: all", values)
    usual = f"data: tokens of a window; 0: the model's, at most {MOST_CONTEXT}"
    whole("context", 0, usual, lower_bound=0, flag_values=values)
    whole(
        "stride",
        0,
        "data: tokens between the beginnings of two windows; 0: context",
        lower_bound=0,
        flag_values=values,
    )
    whole("ngram", 5, "tokens of an n-gram; 0: no n-gram model", lower_bound=0, flag_values=values)
    flags.define_path("json", None, "write the scores, also of each document, to this file", values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the scores. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    begun = time.perf_counter()
    with bad_input():
        refuse(values)
        with alive("loading the model"):
            # Slow imports, which --help does without.
            from launch.evaluation import counted_baseline, scored_model, scoring

            model = scored_model.open_model(Path(values.run))
            context, stride = sizes(values, model.cfg.context_length)
            dataset = None
            if values.data is None:
                try:
                    dataset = counted_baseline.training_data(model).for_run(model.config)
                except counted_baseline.Unavailable as reason:
                    raise ValueError(f"run={values.run}: {reason}; give --data=TEXT") from reason
        baseline, missing = None, "" if values.ngram else "--ngram=0"
        if values.ngram:
            with alive(f"counting {values.ngram}-grams"):
                try:
                    baseline = counted_baseline.fitted(model, values.ngram)
                except counted_baseline.Unavailable as reason:
                    missing = str(reason)
        other = baseline and baseline.model
        with alive("scoring") as detail:
            if dataset is not None:
                scored = scoring.of_validation(model, other, dataset, lambda s: detail(bar(s)))
            else:
                scored = of_data(values, model, other, context, stride, detail)
    about = findings(values, model, scored, baseline, missing)
    about |= {"context": context, "stride": stride, "seconds": time.perf_counter() - begun}
    if values.json:
        with writing("json", values.json):
            write_json(Path(values.json), about)
    show(about)
    return DONE


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that need --data."""
    for flag in ("text_key", "max_bytes", "context", "stride"):
        if values.data is None and values[flag].value:
            raise ValueError(f"--{flag} means nothing without --data; add --data=TEXT or drop it")
    if values.data == "":
        raise ValueError("--data= is empty; name a text, or drop it for the run's validation set")


def sizes(values: absl_flags.FlagValues, most: int) -> tuple[int, int]:
    """(tokens of a window, tokens between two windows). ValueError for impossible ones."""
    context = values.context or min(most, MOST_CONTEXT if values.data else most)
    stride = values.stride or context
    if context > most:
        raise ValueError(f"context={context} is above the model's context_length={most}; lower it")
    if stride > context:
        raise ValueError(f"stride={stride} is above context={context}, so tokens would be left out")
    return context, stride


def of_data(
    values: absl_flags.FlagValues, model: Any, other: Any, context: int, stride: int, detail: Any
) -> Any:
    """Scores the documents of --data; `detail` is told how far it is."""
    from data.sources import corpus
    from launch.amounts import byte_size
    from launch.evaluation import scoring

    most = int(values.max_bytes)
    size, done = corpus.size(values.data), 0
    total = min(size, most) if size and most else most or size
    key = values.text_key or model.config.data.text_key

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        detail(bar(min(1.0, done / total)) if total else byte_size(done))

    documents = corpus.documents(values.data, key, most)
    return scoring.of_text(model, other, documents, context, stride, advance)


def findings(
    values: absl_flags.FlagValues, model: Any, scored: Any, baseline: Any, missing: str
) -> dict[str, Any]:
    """What --json writes. `ngram` has a `reason` where there is no n-gram model."""
    from launch.evaluation import tally

    own, beside = scored
    rows = own.rows()
    result = read_json(model.run / "result.json") or {}
    ngram: dict[str, Any] = {"reason": missing}
    if baseline:
        apart, error = tally.difference(own, beside)
        ngram = {"order": baseline.order, "trained_on": baseline.tokens}
        ngram |= tally.overall(beside) | {"difference": apart, "difference_se": error}
    return {
        "run": str(model.run),
        "step": model.step,
        "data": values.data or "validation set of the run",
        "units": "documents" if values.data else "sequences",
        "texts": len(own.names),
        "tokens": int(rows["weights"].sum()),
        "bytes": int(rows["bytes"].sum()),
        **tally.overall(own),
        "recorded": None if values.data else result.get("eval_loss"),
        "by_position": tally.by_position(own),
        "ngram": ngram,
        "by_text": tally.by_text(own),
    }


def show(about: dict[str, Any]) -> None:
    """Prints the scores, the loss by position, and the worst and best texts."""
    import rich.console

    from launch.amounts import amount, byte_size
    from launch.fitted_table import Column, fitted
    from launch.sparkline import sparkline
    from scaling.printable import printable
    from scaling.report.number_text import nats

    def with_error(value: float, error: float | None) -> str:
        return nats(value) + ("" if error is None else f" ± {nats(error)}")

    console = rich.console.Console(highlight=False, markup=False)
    say = lambda line="", style="": console.print(line, style=style, soft_wrap=True)  # noqa: E731
    counts = f"{about['texts']:,} {about['units']}, {amount(about['tokens'])} tokens"
    say(
        f"{printable(about['run'])} at step {about['step']:,} on {printable(about['data'])}", "bold"
    )
    say(f"  {counts}, {byte_size(about['bytes'])} of text; windows of {about['context']:,} tokens, "
        f"stride {about['stride']:,}")  # fmt: skip
    rows = [("model", about)] + ([(f"{about['ngram']['order']}-gram", about["ngram"])]
                                 if "order" in about["ngram"] else [])  # fmt: skip
    columns = [Column("", [name for name, _ in rows], number=False)]
    for title, key in (("nats/token", "eval_loss"), ("bits/byte", "bits_per_byte")):
        texts = [with_error(r[key], r[f"{key}_se"]) if r[key] is not None else "—" for _, r in rows]
        columns.append(Column(title, texts))
    console.print(fitted(columns, console.width)[0])
    if "order" in about["ngram"]:
        apart = with_error(about["ngram"]["difference"], about["ngram"]["difference_se"])
        say(f"  model − n-gram: {apart} nats/token, paired by {about['units'][:-1]}; counted on "
            f"{amount(about['ngram']['trained_on'])} tokens of training text")  # fmt: skip
    else:
        say(f"  no n-gram model: {printable(about['ngram']['reason'])}")
    if about["recorded"] is not None and abs(about["recorded"] - about["eval_loss"]) > 5e-5:
        say(f"  result.json has {nats(about['recorded'])}: other code, or another checkpoint")
    bins = about["by_position"]
    curve = sparkline([one["loss"] for one in bins], len(bins), console.encoding)
    say(f"\nby position in the window  {curve}", "bold")
    places = [f"{b['first']}" if b["first"] == b["last"] else f"{b['first']}–{b['last']}"
              for b in bins]  # fmt: skip
    console.print(fitted([
        Column("position", places),
        Column("tokens", [amount(one["tokens"]) for one in bins]),
        Column("nats/token", [with_error(one["loss"], one["se"]) for one in bins]),
    ], console.width)[0])  # fmt: skip
    by_text = [one for one in about["by_text"] if one["tokens"] >= WORTH]
    by_text = by_text if len(by_text) >= 2 * SHOWN else about["by_text"]
    measure = "loss" if about["bits_per_byte"] is None else "bits_per_byte"
    order = sorted(by_text, key=lambda one: -(one[measure] or 0.0))
    some, room = min(SHOWN, len(order) // 2), max(20, console.width - 43)
    for title, texts in (("worst", order[:some]), ("best", order[::-1][:some])):
        if texts:
            say(f"\n{title} {about['units']}", "bold")
            bits = ["—" if t["bits_per_byte"] is None else nats(t["bits_per_byte"]) for t in texts]
            console.print(fitted([
                Column("number", [f"{one['number']:,}" for one in texts]),
                Column("tokens", [amount(one["tokens"]) for one in texts]),
                Column("nats/token", [nats(one["loss"]) for one in texts]),
                Column("bits/byte", bits),
                Column("begins with", [printable(t["text"])[:room] for t in texts], number=False),
            ], console.width)[0])  # fmt: skip
