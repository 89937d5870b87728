r"""Table 1 for the terminal, as a table of numbers, and as LaTeX, Markdown and HTML."""

import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from astropy.table import MaskedColumn
from astropy.table import Table as AstropyTable
from rich import box
from rich.markup import escape
from rich.table import Table

from spectangle.reports.table1.collect import Table1
from spectangle.reports.table1.layout import WORDS, Grid, long_rows

__all__ = [
    "html_text",
    "latex_text",
    "markdown_text",
    "number_table",
    "table_text",
    "terminal_table",
    "terminal_tables",
]

NARROW = 10  # characters of a heading in the terminal
COMPACT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
SYMBOLS = WORDS | {"teff": r"$T_{\rm eff}$", "logg": r"$\log g$", "alpha_fe": r"[$\alpha$/Fe]"}


def terminal_tables(grid: Grid, width: int) -> list[Table]:
    """A grid for a terminal of some width: one table, or where it is too narrow several, each with the first columns
    and some of the others, so that no line is broken.
    """
    texts = 1 if grid.groups else 3
    columns = [
        [heading, *cells] for heading, *cells in zip(_headings(grid, "\n", NARROW, once=True), *grid.rows, strict=True)
    ]
    widths = [max(len(line) for cell in column for line in cell.split("\n")) + 2 for column in columns]
    step = 3 if grid.groups else 1
    pieces, used = [[]], 0
    for start in range(texts, len(columns), step):
        places = list(range(start, start + step))
        need = sum(widths[place] for place in places)
        if pieces[-1] and used + need > width:
            pieces.append([])
        used = (used if pieces[-1] else sum(widths[:texts])) + need
        pieces[-1] += places
    return [terminal_table(_piece(grid, texts, places, i, len(pieces))) for i, places in enumerate(pieces)]


def _piece(grid: Grid, texts: int, places: Sequence[int], number: int, count: int) -> Grid:
    """Some columns of a grid behind its first ones; the note stands below the last piece."""
    if count == 1:
        return grid
    kept = [*range(texts), *places]
    shown = [i for i, row in enumerate(grid.rows) if not grid.groups or any(row[place] for place in places)]
    groups = [grid.groups[0], *(grid.groups[1 + (place - 1) // 3] for place in places[::3])] if grid.groups else []
    return replace(
        grid,
        title=f"{grid.title} ({number + 1} of {count})",
        groups=groups,
        headings=[grid.headings[place] for place in kept],
        rows=[[grid.rows[i][place] for place in kept] for i in shown],
        kinds=[grid.kinds[i] for i in shown],
        note=grid.note if number == count - 1 else "",
    )


def terminal_table(grid: Grid) -> Table:
    """A grid for the terminal; rows of one label, or of one representation, stand together."""
    texts = 1 if grid.groups else 3
    table = Table(
        title=escape(grid.title), title_justify="left", caption=escape(grid.note), caption_justify="left", **COMPACT
    )
    for place, heading in enumerate(_headings(grid, "\n", NARROW, once=True)):
        table.add_column(escape(heading), justify="left" if place < texts else "right", no_wrap=True)
    for i, (row, kind) in enumerate(zip(grid.rows, grid.kinds, strict=True)):
        same = bool(i) and row[0] == grid.rows[i - 1][0]
        if kind == "value" if grid.groups else not same:
            table.add_section()
        table.add_row(*(escape(cell) for cell in (["", *row[1:]] if same and not grid.groups else row)))
    return table


def number_table(table: Table1, folder: str) -> AstropyTable:
    """Every number, a row for each label of each representation: typed columns, masked where nothing was measured."""
    columns, rows = long_rows(table)
    meta = {"sweep": folder, "paper": "Manteiga et al. 2025, A&A 694, A326, Table 1", "notes": table.notes}
    result = AstropyTable(meta=meta)
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        if name in ("representation", "title", "label", "unit", "role", "seeds"):
            result[name] = [str(value) for value in values]
        else:
            missing = [value is None for value in values]
            result[name] = MaskedColumn([np.nan if v is None else float(v) for v in values], mask=missing)
    return result


def table_text(table: AstropyTable, form: str) -> str:
    """A table in one of astropy's text formats, ``ascii.csv`` or ``ascii.ecsv``."""
    text = io.StringIO()
    table.write(text, format=form)
    return text.getvalue()


def markdown_text(grid: Grid) -> str:
    """A Markdown table; groups of columns become part of the headings."""
    headings = _headings(grid)
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join([":--", *["--:"] * (len(headings) - 1)]) + "|"]
    for row, kind in zip(grid.rows, grid.kinds, strict=True):
        cells = [f"*{cell}*" if kind == "paper" and cell else cell for cell in row]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return f"### {grid.title}\n\n" + "\n".join(lines) + (f"\n\n{grid.note}\n" if grid.note else "\n")


def _headings(grid: Grid, between: str = " ", width: int = 1000, once: bool = False) -> list[str]:
    """Headings of columns below those of their groups, broken at a width; ``once``: on the first column of each."""
    tops = [
        between.join(textwrap.wrap(title, width, break_long_words=False)) if place == 0 or not once else ""
        for title, columns in grid.groups
        for place in range(columns)
    ]
    tops = tops or [""] * len(grid.headings)
    return [f"{top}{between}{heading}".strip() for top, heading in zip(tops, grid.headings, strict=True)]


def latex_text(grids: Sequence[Grid]) -> str:
    r"""Floats for a paper: ``\input`` them; they need booktabs only."""
    return "% \\usepackage{booktabs}\n" + "\n".join(_latex(grid) for grid in grids)


def _latex(grid: Grid) -> str:
    texts = 1 if grid.groups else 3
    lines = [
        r"\begin{table*}",
        rf"\caption{{{_tex(grid.title.removeprefix('Table 1: ')).capitalize()}.}}",
        rf"\label{{tab:{grid.name}}}",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
    ]
    lines += [rf"\begin{{tabular}}{{{'l' * texts}{'r' * (len(grid.headings) - texts)}}}", r"\toprule"]
    if grid.groups:
        lines.append(
            " & ".join(title and rf"\multicolumn{{{width}}}{{c}}{{{_tex(title)}}}" for title, width in grid.groups)
            + r" \\"
        )
        starts = [2 + 3 * i for i in range(len(grid.groups) - 1)]
        lines.append(" ".join(rf"\cmidrule(lr){{{start}-{start + 2}}}" for start in starts))
    lines += [" & ".join(_tex(heading) for heading in grid.headings) + r" \\", r"\midrule"]
    for i, (row, kind) in enumerate(zip(grid.rows, grid.kinds, strict=True)):
        if i and ((grid.groups and kind == "value") or (not grid.groups and row[0] != grid.rows[i - 1][0])):
            lines.append(r"\addlinespace")
        style = {"paper": r"\textit", "spread": r"\footnotesize"}.get(kind)
        cells = [f"{style}{{{_tex(cell)}}}" if style and cell else _tex(cell) for cell in row]
        # a bracket at the start of a row would be read as the option of the command before it
        lines.append(("{}" if cells[0].startswith("[") else "") + " & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if grid.note:
        lines.append(rf"\par\smallskip\footnotesize {_tex(grid.note)}")
    return "\n".join([*lines, r"\end{table*}", ""])


def html_text(grid: Grid) -> str:
    """An HTML table."""
    lines = [
        f"<h2 id='{grid.name}'>{html.escape(grid.title)}</h2><div "
        f"class=scroll><table{'' if grid.groups else ' class=texts'}>"
    ]
    if grid.groups:
        lines.append(
            "<tr>"
            + "".join(f"<th colspan={width} class=group>{html.escape(title)}</th>" for title, width in grid.groups)
            + "</tr>"
        )
    lines.append("<tr>" + "".join(f"<th>{html.escape(heading)}</th>" for heading in grid.headings) + "</tr>")
    for i, (row, kind) in enumerate(zip(grid.rows, grid.kinds, strict=True)):
        first = (kind == "value") if grid.groups else (i == 0 or row[0] != grid.rows[i - 1][0])
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        lines.append(f"<tr class='{kind}{' first' if first else ''}'>{cells}</tr>")
    return "".join(lines) + "</table></div>" + (f"<p class=note>{html.escape(grid.note)}</p>" if grid.note else "")


def _tex(text: str) -> str:
    """Escape for LaTeX; the names of the labels become symbols, minus signs mathematical."""
    for label, word in WORDS.items():
        text = text.replace(word, f"\0{label}\0")
    for character, escaped in (
        ("\\", r"\textbackslash{}"),
        ("&", r"\&"),
        ("%", r"\%"),
        ("#", r"\#"),
        ("_", r"\_"),
        ("$", r"\$"),
    ):
        text = text.replace(character, escaped)
    for label, word in SYMBOLS.items():
        text = text.replace(f"\0{label.replace('_', chr(92) + '_')}\0", word)
    text = (
        text.replace("\N{PLUS-MINUS SIGN}", r"$\pm$")
        .replace("\N{MINUS SIGN}", "$-$")
        .replace("R2", "$R^2$")
        .replace("sigma", r"$\sigma$")
    )
    return f"${text}$" if text.startswith("-") and text[1:2].isdigit() else text
