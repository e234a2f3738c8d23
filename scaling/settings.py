"""The settings of an analysis: their defaults and valid values."""

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
    """The settings of an analysis."""

    law: str = "parametric"  # key of LAWS; fitted to all runs
    objective: str = "huber"  # huber | squares | absolute
    delta: float = HUBER_DELTA
    weights: str = "none"  # loss_se: weights are inverse squares of the standard errors
    draws: int = 1000  # bootstrap draws; 0: no intervals
    seed: int = SEED
    resampling: str = "auto"  # runs | residuals | auto (depends on the number of runs)
    params: str = "total"  # how N is counted
    flops: str = "6nd"  # how C is counted
    interpolation: str = "parabola"  # curve whose minimum is a budget's optimum
    window: int = WINDOW  # number of sizes that a budget's parabola is fitted to
    fix: Mapping[str, float] = field(default_factory=dict)  # constants of the law, never fitted

    def __post_init__(self) -> None:
        """Raises ValueError with the setting, its value and the valid values."""
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
        """The law, with the constants in `fix` fixed."""
        return LAWS[self.law].fix(self.fix)


DEFAULTS = Settings()
