"""The recurrent networks that tests/bench/recurrent.py measures. Imports no framework."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """Stacked cells of one width in float32 with a tied head, and their batch."""

    name: str  # of the cell
    gates: int
    n_layers: int = 2
    width: int = 256  # of the embedding and of the states
    context: int = 128  # tokens per sequence
    batch: int = 32  # sequences per step
    vocab: int = 256
    steps: int = 2  # per call of a contestant

    @property
    def flops(self) -> float:
        """Model FLOPs of one step: 6 × the weights of the products, per token."""
        weights = self.n_layers * self.gates * 2 * self.width**2 + self.width * self.vocab
        return 6.0 * weights * self.batch * self.context


NETWORKS = {n.name: n for n in (Network("lstm", 4), Network("gru", 3), Network("elman", 1))}
