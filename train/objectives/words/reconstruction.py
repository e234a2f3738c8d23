"""What is measured of vectors of documents, which give no word a probability: the share of the
squared length of held-out documents that the vectors do not explain. For families that are counted;
`model/embeddings/lsa.py` states the formula."""

from typing import Any

from train.objectives.metrics import Metric

FIELDS = ("documents",)
NEEDS = ("rows",)
TRAINED = ("loss",)
METRICS = {
    "loss": Metric("share of squared length", of="unexplained", per="length", floor=0.0),
}


def configure(config: Any) -> None:
    """There is nothing to configure."""


def loss(*_: Any) -> None:
    """No family is trained by it."""
    raise NotImplementedError("reconstruction is measured, not trained")


def evaluate(*_: Any) -> None:
    """The family's `rows` gives the sums."""
    raise NotImplementedError("train/counting.py measures reconstruction")
