"""The frame of every page: one HTML file with its style, data, code and no address outside."""

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from scaling.report.number_text import escape

HERE = Path(__file__).parent
DRAWING = ("altair", "vl_convert")
MODULES = (
    *("numbers", "filter", "store", "theme", "dom", "lazily", "vega", "tooltip", "colouring"),
    *("groups", "winner", "table", "parallel", "keys", "heat", "rates", "curves", "contents"),
    *("live", "tokens", "attention", "main"),
)
"""The files of explorer/ in an order in which each comes after those that it imports."""
IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|const) (\w+))", re.MULTILINE)


def frame(title: str, body: str, specs: Mapping[str, Any], data: str = "") -> str:
    """A whole page. `specs` are Vega-Lite specifications by the id of their element; `data` holds
    further script elements, as `embedded` makes them."""
    fluid = {
        name: spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        for name, spec in specs.items()
    }
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        body=body,
        data=data,
        specs=as_json(fluid),
        library=library(),
        code=code(),
    )


def embedded(name: str, content: Any) -> str:
    """A script element that holds JSON."""
    return f'<script type="application/json" id="{name}">{as_json(content)}</script>'


def as_json(content: Any) -> str:
    """Compact JSON that cannot end or nest a script element. ValueError for nan and infinity."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def code() -> str:
    """The page's code. A page on a disk can import no file, so each module of explorer/ becomes a
    function that is called at once and returns what the module exports."""
    texts = []
    for name in MODULES:
        text = (HERE / "explorer" / f"{name}.js").read_text(encoding="utf-8")
        exported = ", ".join(name for _, name in EXPORT.findall(text))
        inside = EXPORT.sub(r"\1", IMPORT.sub("", text))
        texts.append(
            f"const {{ {exported} }} = (() => {{\n{inside}\nreturn {{ {exported} }};\n}})();"
        )
    return "\n".join(texts)


def library() -> str:
    """The code that draws Vega-Lite; "" if the extra `report` is not installed."""
    if missing_package():
        return ""
    import vl_convert

    # "</script" and "<!--" inside a string would end or nest the script element.
    return (
        vl_convert.javascript_bundle().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    )


def missing_package() -> str | None:
    """The first plotting package that is not installed; None if all are installed."""
    missing = (name for name in DRAWING if importlib.util.find_spec(name) is None)
    return next(missing, None)
