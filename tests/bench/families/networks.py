"""The networks that this folder trains against PyTorch, and their batches. Imports no framework."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recurrent:
    """Stacked cells of one width in float32 with a tied head."""

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


@dataclass(frozen=True)
class EncoderDecoder:
    """Vaswani's block in float32: norms after each branch, one table for all three embeddings."""

    name: str = "encoder_decoder"
    n_layers: int = 4  # of each side
    width: int = 128
    n_heads: int = 4
    d_ff: int = 512
    context: int = 64  # tokens of a source and of a target
    batch: int = 32
    vocab: int = 512
    steps: int = 4

    @property
    def flops(self) -> float:
        """Model FLOPs of one step: 6 × the weights of the products for each token of each side."""
        encoder = self.n_layers * (4 * self.width**2 + 2 * self.width * self.d_ff)
        decoder = encoder + self.n_layers * 4 * self.width**2 + self.width * self.vocab
        return 6.0 * (encoder + decoder) * self.batch * self.context


Network = Recurrent | EncoderDecoder
NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Recurrent("lstm", 4),
        Recurrent("gru", 3),
        Recurrent("elman", 1),
        EncoderDecoder(),
    )
}
