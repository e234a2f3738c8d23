"""How a table is analysed: every choice, its default and what else is valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.fits.isoflop import INTERPOLATIONS, WINDOW
from scaling.fits.robust_fit import HUBER_DELTA, OBJECTIVES, RESAMPLINGS, SEED
from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.table import FLOP_CONVENTIONS, PARAM_CONVENTIONS

LEVEL = 0.9
CHOICES = {
    "objective": (*OBJECTIVES, "absolute"),
    "weights": ("none", "loss_se"),
    "resampling": ("auto", *RESAMPLINGS),
    "params": PARAM_CONVENTIONS,
    "flops": FLOP_CONVENTIONS,
    "interpolation": tuple(INTERPOLATIONS),
}
LEAST = {"draws": 0, "seed": 0, "window": 3, "delta": 1e-12}


@dataclass(frozen=True)
class Settings:
    """How a table is analysed."""

    law: str = "parametric"  # a key of LAWS: what is fitted to all runs
    objective: str = "huber"  # huber | squares | absolute
    delta: float = HUBER_DELTA
    weights: str = "none"  # loss_se: runs weigh by the inverse square of their standard error
    draws: int = 1000  # of the bootstrap; 0: no intervals
    seed: int = SEED
    resampling: str = "auto"  # runs | residuals | auto: by the number of runs
    params: str = "total"  # how N is counted
    flops: str = "6nd"  # how C is counted
    interpolation: str = "parabola"  # how the minimum of a budget is found
    window: int = WINDOW  # points of a budget that its parabola goes through
    fix: Mapping[str, float] = field(default_factory=dict)  # constants of the law, never fitted

    def __post_init__(self) -> None:
        """ValueError names the setting, its value and what would be valid."""
        for name, known in (CHOICES | {"law": tuple(LAWS)}).items():
            if getattr(self, name) not in known:
                value, choices = getattr(self, name), ", ".join(known)
                raise ValueError(f"{name}={value!r} is unknown; use one of {choices}")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}={getattr(self, name)} is too small; use at least {least}")
        LAWS[self.law].fix(self.fix)

    @property
    def fitted_law(self) -> Law:
        """The law, with the constants of `fix` fixed."""
        return LAWS[self.law].fix(self.fix)


DEFAULTS = Settings()
