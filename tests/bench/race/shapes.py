"""The four GPTs that all contestants train, and the FLOPs of a step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A GPT-2 in float32 with a tied head, and its batch size."""

    name: str
    n_layers: int
    d_model: int
    context: int  # tokens per sequence
    batch: int  # sequences per step
    n_heads: int
    steps: int  # per call of a contestant: about half a second on one core
    together: bool = True  # two processes of one core each, otherwise one with two threads
    vocab: int = 256

    @property
    def parameters(self) -> int:
        """Parameters without the position table, which takes part in no matrix product."""
        d = self.d_model
        attention, mlp, norms = 4 * d * d + 4 * d, 8 * d * d + 5 * d, 4 * d
        return self.n_layers * (attention + mlp + norms) + 2 * d + self.vocab * d

    @property
    def flops(self) -> int:
        """Model FLOPs of one step: 6 N + 12 L d T per token (Chowdhery et al. 2022, appendix B)."""
        per_token = 6 * self.parameters + 12 * self.n_layers * self.d_model * self.context
        return per_token * self.batch * self.context


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("S1", 4, 128, 64, 12, 4, steps=10),
        Shape("S2", 4, 64, 64, 32, 4, steps=10),
        Shape("S3", 2, 32, 64, 32, 2, steps=40),
        Shape("S4", 6, 384, 256, 16, 6, steps=1, together=False),
    )
}
