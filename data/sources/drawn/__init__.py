"""Sets of captioned images and sounds that `isoflop synthesise` makes, by name.

A set is a module with `items(count, seed)`, the Items of `written.py`; a `count` of 0 means the
set's default. Equal seeds give equal files. Of EACH or more items at least one is held out.
"""

from functools import partial
from types import SimpleNamespace

from data.sources.drawn import digits, shapes, spoken_digits, tones

SETS = {
    "shapes": shapes,
    "shape_triples": SimpleNamespace(items=partial(shapes.items, held="triples"), EACH=shapes.EACH),
    "shape_pairs": SimpleNamespace(items=partial(shapes.items, held="pairs"), EACH=shapes.EACH),
    "digits": digits,
    "tones": tones,
    "spoken_digits": spoken_digits,
}
