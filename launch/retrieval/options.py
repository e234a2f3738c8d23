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
