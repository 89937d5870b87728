"""Table 1 in the terminal, as wide as it is: the titles of groups stand above their columns."""

import textwrap

from spectangle.reports.table1.layout import Grid

__all__ = ["terminal_text"]

GAP = "  "


def terminal_text(grid: Grid) -> str:
    """A grid as lines of text; rows of one label, or of one representation, stand together."""
    widths = [max(map(len, column)) for column in zip(grid.headings, *grid.rows, strict=True)]
    texts = 1 if grid.groups else 3
    lines = [grid.title, "", *_group_lines(grid, widths), _line(grid.headings, widths, texts)]
    rule = "-" * len(lines[-1])
    for i, (row, kind) in enumerate(zip(grid.rows, grid.kinds, strict=True)):
        if i == 0 or (kind == "value" if grid.groups else row[0] != grid.rows[i - 1][0]):
            lines.append(rule)
        repeated = not grid.groups and i and row[0] == grid.rows[i - 1][0]
        lines.append(_line(["", *row[1:]] if repeated else row, widths, texts))
    lines.append(rule)
    return "\n".join(lines + textwrap.wrap(grid.note, max(80, len(rule)))) + "\n"


def _group_lines(grid: Grid, widths: list[int]) -> list[str]:
    """Titles of the groups, broken to the width of their columns."""
    blocks, at = [], 0
    for title, width in grid.groups:
        span = sum(widths[at : at + width]) + len(GAP) * (width - 1)
        blocks.append([part.center(span) for part in textwrap.wrap(title, span)] or [" " * span])
        at += width
    height = max((len(block) for block in blocks), default=0)
    padded = [[" " * len(block[0])] * (height - len(block)) + block for block in blocks]
    return [GAP.join(parts).rstrip() for parts in zip(*padded, strict=True)]


def _line(cells: list[str], widths: list[int], texts: int) -> str:
    return GAP.join(
        cell.ljust(width) if i < texts else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
