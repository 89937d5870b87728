"""The page around the Bokeh models: HTML, style and engine, all inside one document."""

import json
import re
from importlib.resources import files
from typing import Any

from bokeh.core.templates import get_env
from bokeh.document import Document

from spectangle.explorer.browser_model import deflated, move_arrays
from spectangle.explorer.bundle import Bundle
from spectangle.explorer.page import build_page

__all__ = ["fill_document", "fill_message", "read"]

SHOWN = (
    "search",
    "kiel",
    "other",
    "reset",
    "save_csv",
    "save_png",
    "spectrum",
    "difference",
    "latent",
    "colour_by",
    "method",
    "chart",
)


def fill_document(document: Document, bundle: Bundle, mode: str) -> dict[str, Any]:
    """Put the explorer into a document; return the models by name.

    Arguments:
        document: An empty one.
        bundle: What to show.
        mode: ``served`` or ``saved``.
    """
    models = build_page(document, bundle)
    sliders = [name for name in models if name.startswith("slider_")]
    two = len(bundle.models) == 2
    compare = [f"compare_{kind}_{i}" for i in (0, 1) for kind in ("plot", "difference")] if two else []
    for name in [*SHOWN, *sliders, *compare]:
        document.add_root(models[name])
    # what has no place on the page travels with what has one
    models["search"].tags = [models["request"], models["answer"]]
    names = [run["name"] for run in bundle.payload["runs"]]
    document.title = f"spectangle: {' and '.join(names)}"
    document.template = get_env().from_string(read("page.html"))
    arrays = bytearray()
    payload = json.dumps(move_arrays(_finite(bundle.payload), arrays), allow_nan=False).replace("</", "<\\/")
    document.template_variables.update(
        mode=mode,
        two=two,
        attributes=any(run["attributes"] for run in bundle.payload["runs"]),
        names=names,
        sliders=sliders,
        css=read("explorer.css"),
        javascript=read("explorer.js"),
        payload=payload,
        arrays=deflated(bytes(arrays)),
        deflated_scripts=deflated_scripts,
        postponed=postponed,
    )
    return models


def fill_message(document: Document, message: str) -> None:
    """Put a sentence into a document: what was wrong, and what to do."""
    document.title = "spectangle explorer"
    document.template = get_env().from_string(read("message.html"))
    document.template_variables.update(message=message, css=read("explorer.css"))


def deflated_scripts(html: str) -> str:
    """The code of all script elements in some HTML, deflated: Bokeh's own JavaScript is most of a saved page."""
    return deflated("\n;\n".join(re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)).encode())


def postponed(html: str) -> str:
    """Script elements that wait until explorer.js runs them; those that hold data are left as they are."""
    return re.sub(r"<script(?![^>]*json)[^>]*>", '<script type="text/plain" data-after="bokeh">', html)


def read(name: str) -> str:
    """A file of this package."""
    return (files("spectangle.explorer") / name).read_text(encoding="utf-8")


def _finite(node: Any) -> Any:
    """JSON has no NaN: a number that was not measured is null."""
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and node != node else node
