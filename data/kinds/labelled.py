"""The kind of data `labelled`: texts with one label each, for classification (many to one).

A row is [CLS] text [SEP] and padding, as `data/framed/marks.py` says. With data.frame=end it is the
text between two end-of-document tokens, as a decoder has read it in training.
"""

from dataclasses import dataclass
from typing import Any

from data.fields import Field
from data.framed import labelled_store
from data.framed.labelled_dataset import LabelledDataset, frame_of, spec_of
from data.kinds import text
from data.tokenizer import from_spec as tokenizer_of

FIELDS = ("tokens", "segments", "label")
PREDICTS = "the label of a text"


@dataclass(frozen=True)
class Config:
    corpora: tuple[str, ...] = ("synthetic_sentiment",)  # *.jsonl | *.tsv | *.csv | synthetic_…
    held_out: tuple[str, ...] = ()  # files for validation; (): a share of the corpora
    text_key: str = "text"  # field of a row that holds the text
    label_key: str = "label"
    tokenizer: str = "bytes"  # of the model that is fine-tuned: RUN/tokenizer/tokenizer.json
    vocab_size: int = 0  # tokens to train bpe or unigram with
    validation: float = 0.1  # share of the texts, chosen by a hash of their content
    limit: int = 0  # training texts in use, chosen by a hash of their content; 0: all
    frame: str = "cls"  # cls: [CLS] text [SEP] | end: the end token, text, the end token
    too_long: str = "refuse"  # texts longer than the context: refuse | truncate
    cache: str = "cache"  # folder of the tokens
    hash: str = ""  # of the dataset, filled in by `resolve`; give it to insist on one


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, segments int32 [T] and label int32 []."""
    return spec_of(config.model.context_length, each_word=False)


def tokens(config: Any) -> int:
    """Tokens per row, padding included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Tokens of an existing tokenizer and its marks; ValueError for one that is trained first."""
    text.vocab_size(data)  # refuses those
    return frame_of(data)(tokenizer_of(data.tokenizer)).vocab_size


def prepare(data: Any, progress: bool = True) -> LabelledDataset:
    """The texts of a `data` section as tokens; raises what `labelled_store.prepare` raises."""
    frame = frame_of(data)
    found = labelled_store.prepare(data, each_word=False, progress=progress)
    return LabelledDataset(found, False, frame(found.tokenizer))
