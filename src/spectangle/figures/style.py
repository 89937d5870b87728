"""What all figures share: names of labels, colours, how a figure is saved."""

import base64
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from spectangle.files import whole_file

__all__ = [
    "COLOURS",
    "GREY",
    "INK",
    "axis_title",
    "data_uri",
    "minus",
    "orient",
    "plain_log_ticks",
    "quantile_limits",
    "rows_of",
    "save",
    "symbol",
]

SYMBOLS = {
    "teff": r"$T_{\mathrm{eff}}$",
    "logg": r"$\log g$",
    "alpha_fe": r"[$\alpha$/Fe]",
}
LONG = 18  # characters of a name that fit above or beside a panel
ABUNDANCE = re.compile(r"([a-z]{1,2})_(h|fe)")
INVERTED = ("teff", "logg")  # astronomers draw hot stars left and giants on top
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
INK, GREY = "#222222", "#9aa0a6"


def symbol(label: str) -> str:
    """The label as astronomers write it: also ``c_fe`` is [C/Fe]; one that is not known keeps its name, a long one in
    lines.
    """
    if found := ABUNDANCE.fullmatch(label):
        return f"[{found[1].capitalize()}/{found[2].capitalize()}]"
    if label in SYMBOLS or len(label) <= LONG:
        return SYMBOLS.get(label, label)
    return textwrap.fill(label.replace("_", "_ "), LONG + 1).replace("_ ", "_")


def minus(text: str) -> str:
    """Numbers with the sign that a figure has for a minus."""
    return text.replace("-", "\N{MINUS SIGN}")


def rows_of(names: Sequence[str], most: int = 5) -> list[list[str]]:
    """Labels in rows of equally many, at most so many in one: a figure of one row of ten could not be read."""
    count = -(-len(names) // most)
    width = -(-len(names) // max(1, count))
    return [list(names[start : start + width]) for start in range(0, len(names), max(1, width))]


def axis_title(label: str, units: Mapping[str, str], prefix: str = "") -> str:
    """Symbol and unit of a label."""
    name = f"{prefix}{symbol(label)}"
    return f"{name} [{units[label]}]" if units.get(label) else name


def quantile_limits(*values: np.ndarray, tail: float = 0.002, margin: float = 0.04) -> tuple[float, float]:
    """Axis limits that hold all but the outermost stars of some arrays, with a margin; all of them, where less than one
    star would be left out at each end.
    """
    finite = np.concatenate([np.ravel(v)[np.isfinite(np.ravel(v))] for v in values])
    tail = tail if tail * finite.size >= 1 else 0.0
    low, high = np.quantile(finite, [tail, 1 - tail]) if finite.size else (0.0, 1.0)
    pad = margin * (high - low) or 1e-3
    return float(low - pad), float(high + pad)


def orient(axes: Axes, x: str | None = None, y: str | None = None) -> None:
    """Turn the axes of the labels that astronomers draw from high to low."""
    if x in INVERTED and not axes.xaxis_inverted():
        axes.invert_xaxis()
    if y in INVERTED and not axes.yaxis_inverted():
        axes.invert_yaxis()


def plain_log_ticks(axis: Axis, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Numbers as they are spoken on a logarithmic axis, at some multiples of the powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: str | Path, dpi: int = 120) -> list[Path]:
    """Write a figure as PDF and PNG beside their names, then rename; ``path`` has no suffix."""
    pdf, png = (Path(f"{path}.{kind}") for kind in ("pdf", "png"))
    with whole_file(png) as part:
        figure.savefig(part, format="png", dpi=dpi)
        _shrink(part)
    figure.set_layout_engine("none")  # it is laid out: to do it again would take as long as drawing
    with whole_file(pdf) as part:
        figure.savefig(part, format="pdf", dpi=dpi, metadata={"CreationDate": None})  # same numbers, same file
    return [pdf, png]


def _shrink(path: Path) -> None:
    """Store a PNG with 256 colours: a third of the size, and nobody sees it."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, format="PNG", optimize=True)


def data_uri(picture: Figure | Path, dpi: int = 110) -> str:
    """A figure, or a PNG that was saved, as an address that a page carries inside itself."""
    if isinstance(picture, Path):
        data = picture.read_bytes()
    else:
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png", dpi=dpi)
        data = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
