"""The flags of retrieval, which sample, chat and evaluate share, and the index that they name."""

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.retrieval import retriever
from launch.retrieval.retriever import Retriever


def define(values: absl_flags.FlagValues, passages: int) -> None:
    """Defines --retrieve and --passages, with a default of `passages`."""
    usual = "index (isoflop index) whose best passages are put before the prompt"
    flags.define_path("retrieve", None, usual, values)
    usual = "retrieve: passages, at most; fewer where the context is short"
    absl_flags.DEFINE_integer("passages", passages, usual, lower_bound=1, flag_values=values)


def define_scoring(values: absl_flags.FlagValues) -> None:
    """Defines the flags with which evaluate measures what an index saves."""
    whole, text = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
    usual = "retrieve: index sizes in tokens, such as 10k,1M,all; default: all; for knn, also 1/4, "
    text("sizes", "", usual + "1/16, … of it", values)
    usual = "retrieve: tokens of text to score; 0: all"
    flags.define_amount("score_tokens", 30_000, usual, values)
    usual = "retrieve: tokens between two searches for passages"
    whole("every", 4, usual, lower_bound=1, flag_values=values)
    usual = "retrieve: tokens of a query, the last ones read"
    whole("query", 32, usual, lower_bound=1, flag_values=values)
    usual = "retrieve: tokens of all passages together; 0: half the context"
    whole("passage_tokens", 0, usual, lower_bound=0, flag_values=values)
    usual = "retrieve: knn: nearest states of each token"
    whole("neighbours", 64, usual, lower_bound=1, flag_values=values)
    usual = "retrieve: what searches vectors and states, exactly: numpy | faiss"
    text("backend", "numpy", usual, values)
    usual = "retrieve: law.json or sweep whose law says what larger models save"
    flags.define_path("law", None, usual, values)
    flags.define_path("out", None, "retrieve: write a page with figures to this folder", values)


def opened(values: absl_flags.FlagValues) -> Retriever | None:
    """The index that the flags name; None if they name none. ValueError or FileNotFoundError, in
    one line, for one that cannot be read, and for --passages without an index."""
    if not values.retrieve:
        if values["passages"].present:
            raise ValueError(
                f"passages={values.passages} means nothing without --retrieve; drop it"
            )
        return None
    return retriever.open_index(to_path(values.retrieve))
