r"""Table 1 as CSV, ECSV, LaTeX, Markdown and HTML."""

import csv
import html
import io
from collections.abc import Sequence

from spectangle.reports.table1.collect import Table1
from spectangle.reports.table1.layout import WORDS, Grid, long_rows

__all__ = ["csv_text", "ecsv_text", "html_text", "latex_text", "markdown_text"]

SYMBOLS = {"teff": r"$T_{\rm eff}$", "logg": r"$\log g$", "m_h": "[M/H]", "alpha_fe": r"[$\alpha$/Fe]"}


def csv_text(table: Table1) -> str:
    text = io.StringIO()
    columns, rows = long_rows(table)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *(["" if value is None else value for value in row] for row in rows)])
    return text.getvalue()


def ecsv_text(table: Table1, folder: str) -> str:
    """Astropy's text table: typed columns, masked where nothing was measured."""
    import numpy as np
    from astropy.table import MaskedColumn
    from astropy.table import Table as AstropyTable

    columns, rows = long_rows(table)
    result = AstropyTable(
        meta={"sweep": folder, "paper": "Manteiga et al. 2025, A&A 694, A326, Table 1", "notes": table.notes}
    )
    for index, name in enumerate(columns):
        values = [row[index] for row in rows]
        if name in ("representation", "title", "label", "unit", "role", "seeds"):
            result[name] = values
        else:
            result[name] = MaskedColumn(
                [np.nan if v is None else float(v) for v in values], mask=[v is None for v in values]
            )
    text = io.StringIO()
    result.write(text, format="ascii.ecsv")
    return text.getvalue()


def markdown_text(grid: Grid) -> str:
    """A Markdown table; groups of columns become part of the headings."""
    tops = [title for title, width in grid.groups for _ in range(width)] or [""] * len(grid.headings)
    headings = [f"{top} {heading}".strip() for top, heading in zip(tops, grid.headings, strict=True)]
    lines = ["| " + " | ".join(headings) + " |", "|" + "|".join([":--", *["--:"] * (len(headings) - 1)]) + "|"]
    for row, kind in zip(grid.rows, grid.kinds, strict=True):
        cells = [f"*{cell}*" if kind == "paper" and cell else cell for cell in row]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return f"### {grid.title}\n\n" + "\n".join(lines) + (f"\n\n{grid.note}\n" if grid.note else "\n")


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
