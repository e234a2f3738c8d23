"""L(N) and L(D).  isoflop sweep --config=configs/kaplan.py --workdir=runs/kaplan
One GPU or TPU, or about 1.5 h of 2 CPU cores: unmeasured.

After Kaplan et al. 2020 (arXiv:2001.08361), figure 1: every size on many tokens, and the largest
size on fewer and fewer. The schedule of each run ends at its last token, whereas the paper read one
curve at many points; Hoffmann et al. 2022 explain how the results differ.
"""

from ml_collections import ConfigDict

from configs.space import chain, product, zip_
from configs.study import ladder

WIDTHS = (32, 48, 64, 96, 128, 160)
LAYERS = (2, 3, 3, 4, 4, 6)
TOKENS = 2e7
FEWER = (1e7, 5e6, 2.5e6, 1.25e6, 6e5)


def get_config(arg: str | None = None) -> ConfigDict:
    """The study's recipe; FLOPs are counted as in the paper, by the blocks' matrices."""
    config = ladder.get_config()
    config.name = "kaplan"
    config.train.flops_convention = "kaplan"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Six sizes at 20M tokens, then the largest at five smaller durations."""
    sizes = zip_({"model.n_layers": LAYERS, "model.d_model": WIDTHS})
    tokens = lambda number: {"train.duration": f"{number:.4g} tokens"}  # noqa: E731
    return chain(
        product(sizes, [tokens(TOKENS)]), product(sizes[-1:], [tokens(fewer) for fewer in FEWER])
    )
