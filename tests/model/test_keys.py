"""Tests that the rules declared by config fields are enforced, up to the last allowed value."""

from dataclasses import dataclass, replace

import pytest

from model.keys import check, defaults, key, rules


@dataclass(frozen=True)
class Config:
    width: int = key(0, least=1)
    rate: float = key(0.5, least=0, below=1)
    share: float = key(1.0, above=0, most=1)
    cell: str = key("lstm", choices=("lstm", "gru"))
    pattern: str = key("A", letters="AB")
    peepholes: bool = key(False, needs={"cell": ("lstm",)})

    def __post_init__(self):
        check(self)


VALID = Config(width=8)
# Error message: (refused change, the nearest allowed change).
REFUSED = {
    "model.width=0 must be at least 1": (dict(width=0), dict(width=1)),
    "model.rate=1 must be at least 0 and below 1": (dict(rate=1), dict(rate=0.999)),
    "model.rate=-0.1 must be at least 0 and below 1": (dict(rate=-0.1), dict(rate=0)),
    "model.rate=nan must be at least 0 and below 1": (dict(rate=float("nan")), dict(rate=0.1)),
    "model.share=0 must be above 0 and at most 1": (dict(share=0), dict(share=1)),
    "model.share=1.1 must be above 0 and at most 1": (dict(share=1.1), dict(share=1e-9)),
    "model.cell='rnn' is unknown; use one of lstm, gru": (dict(cell="rnn"), dict(cell="gru")),
    "model.pattern='AC' must be made of the letters A, B": (dict(pattern="AC"), dict(pattern="BA")),
    "model.pattern='' must be made of the letters A, B": (dict(pattern=""), dict(pattern="B")),
    "model.peepholes=True has no effect with model.cell='gru'; it needs lstm": (
        dict(cell="gru", peepholes=True),
        dict(cell="gru", peepholes=False),
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_value_outside_the_rules_is_refused_and_its_neighbour_is_not(message):
    refused, allowed = REFUSED[message]
    with pytest.raises(ValueError) as error:
        replace(VALID, **refused)
    assert str(error.value) == message
    assert vars(replace(VALID, **allowed)).items() >= allowed.items()


def test_a_default_below_its_bound_has_to_be_given():
    with pytest.raises(ValueError, match=r"model\.width=0"):
        Config()


def test_what_the_fields_state_can_be_listed():
    assert defaults(Config)["rate"] == 0.5 and list(defaults(VALID)) == list(vars(VALID))
    assert rules(Config, "choices") == {"cell": ("lstm", "gru")}
    assert rules(Config, "needs") == {"peepholes": {"cell": ("lstm",)}}


def test_unknown_bounds_are_refused():
    with pytest.raises(TypeError, match="at_least"):
        key(1, at_least=0)
