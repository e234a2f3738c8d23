"""The kind of data `tagged`: texts with a label for each word (many to many).

The label of a word is predicted at its last token, where a decoder has read it whole. (Devlin et
al. 2019, section 5.3, take its first token.) Rows are those of the kind `labelled`.
"""

from typing import Any

from data.fields import Field
from data.framed import labelled_store
from data.framed.labelled_dataset import LabelledDataset, frame_of, spec_of
from data.kinds.labelled import Config as Config
from data.kinds.labelled import tokens as tokens
from data.kinds.labelled import vocab_size as vocab_size

FIELDS = ("tokens", "segments", "labels")
PREDICTS = "the label of a word"


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, segments and labels int32 [T]."""
    return spec_of(config.model.context_length, each_word=True)


def prepare(data: Any, progress: bool = True) -> LabelledDataset:
    """The texts of a `data` section as tokens; raises what `labelled_store.prepare` raises."""
    frame = frame_of(data)
    found = labelled_store.prepare(data, each_word=True, progress=progress)
    return LabelledDataset(found, True, frame(found.tokenizer))
