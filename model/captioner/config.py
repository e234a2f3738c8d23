"""Config: a frozen, validated, hashable description of a captioner."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.keys import check, check_value, divisors, key
from model.transformer.config import CHOICES, ModelConfig, mlp_width

# What a patch divides, by key: the data's name of it.
SIZES = {
    "patch_height": "the height of images (data.height) or data.mels of sounds",
    "patch": "the width of images (data.width) or the frames of sounds (data.seconds)",
}
LEARNED, FROZEN = "learned", "frozen"
# Keys of the blocks of both stacks.
SHARED = ("norm", "activation", "gated", "dropout", "init_std", "dtype", "scan_layers", "remat")


@dataclass(frozen=True)
class Config:
    """The `model` section of a captioner: a Vision Transformer's encoder of patches (Dosovitskiy et
    al. 2021), a projector (Liu et al. 2023, LLaVA) and a decoder.

    Raises ValueError that names the key, its value and the valid values."""

    vocab_size: int = key(0, least=1)  # tokens; 0: the tokenizer's
    context_length: int = key(16, least=2)  # tokens of a caption and its end; patches come before
    image: tuple[int, ...] = key(())  # height, width, channels of an image; (): those of the data
    patch: int = key(4, least=1)  # pixels of a patch's width
    patch_height: int = key(0, least=1)  # pixels; 0: patch
    # learned | frozen: that of the run objective.encoder, which has the same encoder_* keys
    encoder: str = key(LEARNED, choices=(LEARNED, FROZEN))
    encoder_layers: int = key(2, least=1)
    encoder_width: int = key(0, least=1)  # 0: d_model
    encoder_heads: int = key(0, least=1)  # 0: n_heads
    # From the encoder's states to the decoder's embeddings: linear (LLaVA) | mlp: linear, GELU,
    # linear (LLaVA-1.5)
    projector: str = key("linear", choices=("linear", "mlp"))
    n_layers: int = key(2, least=1)  # of the decoder
    d_model: int = key(64, least=1)
    n_heads: int = key(4, least=1)
    d_ff: int = key(0, least=1)  # width of the decoder's MLP; 0: as the decoder family derives it
    positions: str = key("learned", choices=("learned", "sinusoidal", "rotary", "alibi", "none"))
    norm: str = key("layernorm", choices=CHOICES["norm"])
    activation: str = key("gelu_tanh", choices=CHOICES["activation"])
    gated: bool = key(False)  # True: act(x W_gate) * (x W_up)
    tie_embeddings: bool = key(True)  # the head is the transposed token embedding
    dropout: float = key(0.0, least=0, below=1)  # on embeddings and on each residual branch
    init_std: float = key(0.02, above=0)
    dtype: str = key("float32", choices=("float32", "bfloat16"))  # of the computation
    scan_layers: bool = key(False)  # one compiled block in a loop
    remat: str = key("none", choices=CHOICES["remat"])  # what a block keeps: model/transformer

    def __post_init__(self):
        object.__setattr__(self, "image", tuple(self.image))  # JSON has only lists
        check(self)
        if len(self.image) != 3 or min(self.image) < 1:
            raise ValueError(
                f"model.image={self.image} must be height, width and channels, each 1 or more; "
                "use data.kind=images or sounds, which set it"
            )
        for named, size in zip(SIZES, self.image, strict=False):
            if size % (patch := getattr(self, named)):
                raise ValueError(
                    f"model.{named}={patch} does not divide {size}, {SIZES[named]}; use "
                    f"{divisors(size, size)}, or another size of the data"
                )
        for width, heads in (("d_model", "n_heads"), ("encoder_width", "encoder_heads")):
            size, parts = getattr(self, width), getattr(self, heads)
            if size % parts:
                raise ValueError(
                    f"model.{heads}={parts} does not divide model.{width}={size}; use "
                    f"{divisors(size)}"
                )

    @property
    def patches(self) -> int:
        """Patches of an image: the length of the prefix."""
        height, width, _ = self.image
        return height // self.patch_height * (width // self.patch)

    @property
    def patch_size(self) -> int:
        """Numbers of a patch."""
        return self.patch_height * self.patch * self.image[2]

    @property
    def learns_encoder(self) -> bool:
        """Whether the encoder is among the trained parameters."""
        return self.encoder == LEARNED


def derive(keys: Mapping[str, Any]) -> Config:
    """A Config from a `model` section, with its zeros derived."""
    keys = dict(keys)
    for name in ("d_model", "n_heads", "patch"):
        check_value(Config, name, keys[name])
    d_model = keys["d_model"]
    keys["patch_height"] = keys["patch_height"] or keys["patch"]
    keys["encoder_width"] = keys["encoder_width"] or d_model
    keys["encoder_heads"] = keys["encoder_heads"] or keys["n_heads"]
    keys["d_ff"] = keys["d_ff"] or mlp_width(d_model, keys["gated"])
    return Config(**keys)


@functools.lru_cache(maxsize=64)
def decoder(cfg: Config) -> ModelConfig:
    """The decoder, whose context holds the patches and then the tokens."""
    keys = {name: getattr(cfg, name) for name in SHARED}
    return ModelConfig(
        **keys,
        vocab_size=cfg.vocab_size,
        context_length=cfg.patches + cfg.context_length,
        n_layers=cfg.n_layers,
        d_model=cfg.d_model,
        n_heads=cfg.n_heads,
        n_kv_heads=cfg.n_heads,
        head_dim=cfg.d_model // cfg.n_heads,
        d_ff=cfg.d_ff,
        positions=cfg.positions,
        tie_embeddings=cfg.tie_embeddings,
        attention="xla",
    )


@functools.lru_cache(maxsize=64)
def encoder(cfg: Config) -> ModelConfig:
    """What the layers of model/transformer read of the encoder. It reads no tokens."""
    keys, width = {name: getattr(cfg, name) for name in SHARED}, cfg.encoder_width
    return ModelConfig(
        **keys,
        vocab_size=1,
        context_length=cfg.patches,
        n_layers=cfg.encoder_layers,
        d_model=width,
        n_heads=cfg.encoder_heads,
        n_kv_heads=cfg.encoder_heads,
        head_dim=width // cfg.encoder_heads,
        d_ff=mlp_width(width, cfg.gated),
        positions="none",
        attention="xla",
    )
