"""Drawn shapes with captions: "a small red circle left of a blue square".

An image of 32 × 32 pixels shows one or two shapes, centred on whole pixels, on a dark, noisy
ground. A caption names each shape's size (a medium one has no word), colour and form. Of two shapes
it begins with the left or the upper one, so that every image has exactly one right caption.

    caption   a [small|large] COLOUR FORM [left of|above a [small|large] COLOUR FORM]

Combinations of words are held out, chosen by the seed: they never occur in training, and every
held-out image has one. In order of difficulty:

    shapes         58 of the 576 pairs that the colours and forms of two shapes can make
    shape_triples  12 of the 72 combinations of size, colour and form
    shape_pairs    4 of the 24 combinations of colour and form
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from data.sources.drawn.written import Item

VERSION = 1  # of the drawing
SIDE = 32  # pixels of an image
FINE = 4  # points of the drawing per pixel and side
EACH = 10  # one of 10 images is held out
DEFAULT = 20_000  # images
RADII = {"small ": 3.6, "": 5.0, "large ": 6.9}  # in pixels; a medium shape has no word
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 240),
    "yellow": (235, 220, 50),
    "purple": (170, 60, 200),
    "white": (240, 240, 240),
}
# Of points at (x, y) from the centre, in units of the radius: whether the form covers them.
FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.9,
    "triangle": lambda x, y: (y <= 0.8) & (2 * abs(x) <= y + 1.1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1),
}
RELATIONS = {"left of": (1, 0), "above": (0, 1)}  # where the second shape is, (x, y)


Shape = tuple[str, str, str]
"""(size, colour, form); a medium size is empty."""


Held = Callable[[list[Shape]], bool]
"""Whether the shapes of an image have a combination that is held out."""


def items(count: int, seed: int, held: str = "scenes") -> Iterator[Item]:
    """`count` images, uint8 [32, 32, 3]; 0: DEFAULT of them. `held` is a key of HELD."""
    is_held = HELD[held](np.random.default_rng([VERSION, seed]))
    for number in range(count or DEFAULT):
        draw = np.random.default_rng([VERSION, seed, number])
        yield _item(draw, is_held, held_out=number % EACH == EACH - 1)


def scenes(draw: np.random.Generator) -> Held:
    """A tenth of the ordered pairs of (colour, form), drawn by `draw`."""
    pairs = list(product(product(COLOURS, FORMS), repeat=2))
    chosen = draw.permutation(len(pairs))[: round(len(pairs) / 10)]
    held = {pairs[place] for place in chosen}
    return lambda shapes: tuple(shape[1:] for shape in shapes) in held


def triples(draw: np.random.Generator) -> Held:
    """Another colour of each form in each size."""
    colours = draw.permutation(list(COLOURS)).tolist()
    places = product(enumerate(RADII), enumerate(FORMS))
    held = {(size, colours[(j + 2 * k) % len(colours)], form) for (k, size), (j, form) in places}
    return lambda shapes: bool(held & set(shapes))


def pairs(draw: np.random.Generator) -> Held:
    """Another colour of each form."""
    held = set(zip(draw.permutation(list(COLOURS)).tolist(), FORMS, strict=False))
    return lambda shapes: bool(held & {shape[1:] for shape in shapes})


HELD: dict[str, Callable[[np.random.Generator], Held]] = {
    "scenes": scenes, "triples": triples, "pairs": pairs,
}  # fmt: skip


def _item(draw: np.random.Generator, is_held: Held, held_out: bool) -> Item:
    shapes: list[Shape] = []
    while not shapes or is_held(shapes) != held_out:
        shapes = [_shape(draw) for _ in range(1 + int(draw.random() < 0.75))]
    said = [f"a {size}{colour} {form}" for size, colour, form in shapes]
    relation = list(RELATIONS)[draw.integers(len(RELATIONS))]
    radii = [RADII[size] * draw.uniform(0.96, 1.04) for size, _, _ in shapes]
    centres = _centres(draw, radii, RELATIONS[relation])
    image = _drawn(draw, shapes, radii, np.round(centres))
    return Item(image, f" {relation} ".join(said), held_out)


def _shape(draw: np.random.Generator) -> Shape:
    return tuple(list(of)[draw.integers(len(of))] for of in (RADII, COLOURS, FORMS))


def _centres(
    draw: np.random.Generator, radii: list[float], axis: tuple[int, int]
) -> list[tuple[float, float]]:
    """Where the shapes are, (x, y): inside of the image and, of two, apart along `axis` and within
    a quarter of that distance across it."""
    margins = [radius + 0.5 for radius in radii]
    if len(radii) == 1:
        return [tuple(draw.uniform(margins[0], SIDE - margins[0], 2))]
    gap, (first, second) = sum(radii) + 1.5, margins
    along_first = draw.uniform(first, SIDE - second - gap)
    along_second = draw.uniform(along_first + gap, SIDE - second)
    reach = min((along_second - along_first) / 4, SIDE / 2 - max(margins))
    middle = draw.uniform(max(margins) + reach / 2, SIDE - max(margins) - reach / 2)
    shift = draw.uniform(-reach / 2, reach / 2)
    places = [(along_first, middle - shift), (along_second, middle + shift)]
    return places if axis == (1, 0) else [(x, y) for y, x in places]


def _drawn(draw, shapes, radii, centres) -> np.ndarray:
    """The image, uint8 [32, 32, 3]: FINE × FINE points are averaged to a pixel."""
    at = (np.arange(SIDE * FINE) + 0.5) / FINE
    image = np.full((SIDE, SIDE, 3), draw.uniform(10, 50))
    for (_, colour, form), radius, (x, y) in zip(shapes, radii, centres, strict=True):
        inside = FORMS[form]((at[None, :] - x) / radius, (at[:, None] - y) / radius)
        share = inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))[:, :, None]
        shade = np.array(COLOURS[colour]) * draw.uniform(0.85, 1.0)
        image = image * (1 - share) + shade * share
    noisy = image + draw.normal(0, 6, image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)
