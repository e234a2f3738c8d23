"""Sets of captioned images and sounds that `isoflop synthesise` makes, by name.

A set is a module with `items(count, seed)`, the Items of `written.py`; `count` is 0 for the set's
own number. Equal seeds give equal files.
"""

from data.sources.drawn import digits, shapes

SETS = {"shapes": shapes, "digits": digits}
