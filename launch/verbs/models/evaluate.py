"""isoflop evaluate: scores the model of a run on any text, or by the answers that it gives.

isoflop evaluate --run=runs/first
isoflop evaluate --run=runs/first --data=book.txt
isoflop evaluate --run=runs/llama --data=web.jsonl --max_bytes=1M --stride=512
isoflop evaluate --run=runs/sft --tasks=addition_reversed,sorting --samples=16 --k=1,8
isoflop evaluate --run=runs/sft --tasks=sorting --samples=64 --reward=runs/reward
isoflop evaluate --run=runs/first --retrieve=runs/states --law=runs/quickstart --out=report
isoflop evaluate --run=runs/llama --tasks=core:eval_bundle,lm_eval:mine --lm_eval_path=my_tasks

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

--tasks draws answers instead and checks them. Its names are those of data/tasks (addition_reversed,
sorting, spelling_backwards, letter_counting, style), a file.jsonl of {"prompt": …, "answer": …},
core:DIR for a CORE bundle, and lm_eval:NAME for a task file of lm-evaluation-harness in
--lm_eval_path, which may run code. The prompts of a task are held out of training. pass@k is the
probability that one of k answers is right, without bias, with an interval over prompts. A run with
a chat template answers through it; otherwise it continues the prompt to the end of the line.
--reward is best-of-n, a baseline of reinforcement learning: how often the answer that the reward
model prefers among n = 1, 2, 4, … is right, without bias, over all subsets of the samples.

--retrieve measures what an index (isoflop index) saves, in nats per token with a standard error
that is paired by text. An index of kind=knn makes a kNN language model (Khandelwal et al. 2020):
its two constants are tuned on the first half of the text and measured on the second. An index of
passages is searched every --every tokens for the last --query tokens, and the best passages are put
before the text (Ram et al. 2023). Passages of documents that are scored are left out. --law also
says how many times larger a model would have to be to save as much.
"""

import time
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing
from launch.files import read_config, write_json
from launch.retrieval import options

MOST_CONTEXT = 2048  # tokens of a window by default
OF_TEXT = ("data", "text_key", "max_bytes", "context", "stride", "ngram")
CAPTIONED = ("images", "sounds")  # kinds of data
OF_TASKS = (
    *("samples", "k", "prompts", "size", "temperature", "tokens", "seed", "template", "stop"),
    *("checker", "reward", "lm_eval_path", "examples"),
)
OF_RETRIEVAL = (
    *("passages", "sizes", "score_tokens", "every", "query", "passage_tokens", "neighbours"),
    *("backend", "law", "out"),
)
NOT_WITH_RETRIEVAL = ("context", "stride", "ngram")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path(
        "run", None, "folder of the run; tasks: also one of Hugging Face weights", values
    )
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
    define_tasks(values)
    options.define(values, passages=1)
    options.define_scoring(values)
    flags.define_path("json", None, "write the scores, also of each document, to this file", values)
    flags.define_import(values)
    return values


def define_tasks(values: absl_flags.FlagValues) -> None:
    """The flags of --tasks."""
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    text(
        "tasks", None, "answer these tasks, with commas between them, and check the answers", values
    )
    whole("samples", 16, "tasks: answers to each prompt", lower_bound=1, flag_values=values)
    text("k", "1,8", "tasks: the k of pass@k, at most --samples", values)
    usual = "tasks: prompts or rows of each; 0: 100 of a generated task, all of a file or a bundle"
    whole("prompts", 0, usual, lower_bound=0, flag_values=values)
    usual = "tasks: digits, numbers or letters of a generated prompt; 0: the task's"
    whole("size", 0, usual, lower_bound=0, flag_values=values)
    absl_flags.DEFINE_float(
        "temperature",
        1.0,
        "tasks: divides the logits; 0: the likeliest answer",
        lower_bound=0,
        flag_values=values,
    )
    usual = (
        "tasks: tokens of an answer, at most; 0: those of the longest right one and half as many"
    )
    whole("tokens", 0, usual, lower_bound=0, flag_values=values)
    whole("seed", 0, "tasks: seed of the draws", lower_bound=0, flag_values=values)
    usual = "tasks: chat template to use; none: running text; default: the run's own, if any"
    text("template", "", usual, values)
    stops = "tasks: text that ends an answer (default without a template: the end of the line)"
    absl_flags.DEFINE_multi_string("stop", [], stops, flag_values=values)
    text("checker", "", "tasks: package.module:function that scores the answers", values)
    usual = "tasks: run of a reward model that picks the best of n answers"
    flags.define_path("reward", None, usual, values)
    flags.define_path("lm_eval_path", None, "tasks: folder of lm_eval's task files", values)
    usual = "tasks: right and wrong answers of each to show"
    whole("examples", 2, usual, lower_bound=0, flag_values=values)


def main(argv: Sequence[str]) -> int:
    """Prints the scores. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    begun = time.perf_counter()
    with bad_input():
        refuse(values)
        if values.tasks is not None:
            return of_tasks(values, begun)
        if captions_images(values.run):
            return of_captions(values, begun)
        if values.retrieve:
            return of_index(values, begun)
        with alive("loading the model"):
            # Slow imports, which --help does without.
            from launch.evaluation import counted_baseline, findings, scored_model, scoring

            model = scored_model.open_model(to_path(values.run))
            context, stride = sizes(values, model.cfg.context_length)
            if stride < context and model.initial_carry(1) is not None:
                raise ValueError(
                    f"stride={stride} rereads tokens, but the model carries its state from window "
                    "to window (model.carry_state=True); drop --stride"
                )
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
    about = findings.findings(model, values.data, scored, baseline, missing)
    about |= {"context": context, "stride": stride, "seconds": time.perf_counter() - begun}
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    findings.show(about)
    return DONE


def of_tasks(values: absl_flags.FlagValues, begun: float) -> int:
    """Prints what --tasks measures. Returns the exit code."""
    with alive("evaluating") as detail:
        from launch.benchmarks import chosen, listing  # slow imports, which --help does without

        about = chosen.evaluate(values, lambda name, share: detail(f"{name} {bar(share)}"))
    about["seconds"] = time.perf_counter() - begun
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    listing.show(about, values.examples)
    return DONE


def captions_images(run: str) -> bool:
    """Whether a run was trained on images or sounds; False where no config says so."""
    section = (read_config(to_path(run)) or {}).get("data")
    return isinstance(section, dict) and section.get("kind") in CAPTIONED


def of_captions(values: absl_flags.FlagValues, begun: float) -> int:
    """Prints how often captions are exactly right. Returns the exit code."""
    for flag in (*OF_TEXT, "retrieve"):
        if flag != "data" and values[flag].present:
            raise ValueError(f"--{flag} is for text, and run={values.run} captions images; drop it")
    with alive("loading the model"):
        from launch.captions import captioner, exact  # slow imports, which --help does without

        model = captioner.open_run(to_path(values.run))
        of = (
            exact.of_validation(model) if values.data is None else exact.of_data(model, values.data)
        )
    lost, examples, total = of
    with alive("captioning") as detail:
        rows = exact.measure(model, examples, lambda done: detail(bar(done / total)))
    about = exact.findings(model, values.data, rows, lost)
    about["seconds"] = time.perf_counter() - begun
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    exact.show(about)
    return DONE


def of_index(values: absl_flags.FlagValues, begun: float) -> int:
    """Prints what --retrieve saves. Returns the exit code."""
    if values.out:
        flags.require_writable(to_path(values.out), "out")
    with alive("evaluating") as detail:
        from launch.retrieval import listing, scored  # slow imports, which --help does without

        about = scored.evaluate(values, lambda what, share: detail(f"{what} {bar(share)}"))
    about["seconds"] = time.perf_counter() - begun
    if values.out:
        from scaling.report.retrieval import page

        with writing("out", values.out), alive("drawing"):
            about["page"] = str(page.write_page(to_path(values.out), about))
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    listing.show(about)
    return DONE


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that need --data or --tasks, or exclude them."""
    for flag in OF_TASKS if values.tasks is None else OF_TEXT:
        if values[flag].present:
            other = "without" if values.tasks is None else "with"
            raise ValueError(f"--{flag} means nothing {other} --tasks; drop it")
    if values.tasks is not None and values.retrieve:
        raise ValueError("--retrieve means nothing with --tasks; drop one of them")
    for flag in OF_RETRIEVAL if not values.retrieve else NOT_WITH_RETRIEVAL:
        if values[flag].present:
            other = "with" if values.retrieve else "without"
            raise ValueError(f"--{flag} means nothing {other} --retrieve; drop it")
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
    """Scores the documents of --data; `detail` receives the progress."""
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
