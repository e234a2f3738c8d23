"""A map of words in two dimensions: a picture, a page of its own, or a part of a sweep's page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.drafts import read_object, write
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import escape

FILE = "words.json"
"""The map beside a sweep's page: run, projection, axes [2] and words, each a word with x and y."""
NAME = "words"  # of the element that holds the figure
WIDTH, HEIGHT, PNG_SCALE = 720, 520, 2
INK = "#1d2330"


def spec(about: Mapping[str, Any]) -> dict[str, Any]:
    """The Vega-Lite specification of a map with the content of FILE."""
    axis = {"ticks": False, "labels": False, "domain": False, "grid": False}
    scale = {"zero": False, "nice": False, "padding": 30}  # room for words at the sides
    place = {
        name: {"field": name, "type": "quantitative", "title": title, "axis": axis, "scale": scale}
        for name, title in zip("xy", about["axes"], strict=True)
    }
    word = {"field": "word", "type": "nominal"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": list(about["words"])},
        "mark": {"type": "text", "fontSize": 11, "color": INK, "clip": True},
        "encoding": place | {"text": word, "tooltip": word},
        "params": [{"name": "zoom", "select": "interval", "bind": "scales"}],
        "width": WIDTH,
        "height": HEIGHT,
        "background": "white",
        "config": {
            "font": "Helvetica, Arial, sans-serif",
            "view": {"stroke": None},
            "axis": {"titleColor": INK, "titleFontWeight": 500, "titlePadding": 10},
        },
    }


def section(about: Mapping[str, Any]) -> str:
    """The HTML around the figure."""
    caption = (
        f"The {len(about['words'])} most frequent words of the run {about['run']}, "
        f"{about['projection']}. Scroll to zoom, drag to move."
    )
    return (
        f'<figure class="panel"><h2>Map of the words</h2><div class="chart" id="{NAME}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def part(folder: Path) -> tuple[str, dict[str, Any]]:
    """(HTML, specifications by id) of the map that lies in a folder; ("", {}) without one, and
    where nothing can draw it. ValueError for a damaged file."""
    file = folder / FILE
    if missing_package() or not file.is_file():
        return "", {}
    try:
        about = read_object(file)
        return section(about), {NAME: spec(about)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no map of words ({error}); delete it") from None


def write_map(file: Path, about: Mapping[str, Any]) -> Path:
    """Writes a map as a page, .html, or as a picture, .png. ValueError for another suffix, and
    without the packages that draw."""
    if file.suffix not in (".html", ".png"):
        raise ValueError(f"map={file} must end with .html or .png")
    if name := missing_package():
        raise ValueError(f"map={file} needs the package {name}: pip install 'isoflop[report]'")
    if file.suffix == ".png":
        import vl_convert

        return write(file, vl_convert.vegalite_to_png(spec(about), scale=PNG_SCALE))
    head = f"<h1>Words of {escape(about['run'])}</h1>\n"
    return write(
        file, frame(f"Words of {about['run']}", head + section(about), {NAME: spec(about)})
    )
