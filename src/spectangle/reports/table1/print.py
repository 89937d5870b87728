"""The report on Table 1: spectangle report kind=table1 sweep=DIR

Tables as CSV, ECSV, LaTeX and Markdown, figures as PDF and PNG, and one page that carries everything inside itself.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from spectangle.caching import cache_folder
from spectangle.console import WIDEST, console, render
from spectangle.errors import SpectangleError
from spectangle.figures import data_uri, save
from spectangle.files import write_beside
from spectangle.page_style import PAGE_STYLE
from spectangle.reports.table1.baselines import add_baselines
from spectangle.reports.table1.collect import Table1, collect
from spectangle.reports.table1.figures import ReportFigure, report_figures
from spectangle.reports.table1.layout import Grid, attribute_grid, leakage_grid, paper_grids, ratio_grid
from spectangle.reports.table1.text import (
    html_text,
    latex_text,
    markdown_text,
    number_table,
    table_text,
    terminal_tables,
)

__all__ = ["print_table1", "write_tables"]

SOURCE = (
    "Manteiga et al. 2025, A&amp;A 694, A326, section 3.3. "
    "First pair: T_eff and log g kept, [M/H] and [alpha/Fe] lost; second pair: the other way round."
)
SHORT = {
    "table1": "Table 1",
    "probes": "What is kept and lost",
    "gains": "Gains and costs",
    "attributes": "Attributes",
}  # of the tables, in the links at the top
STYLE = (
    PAGE_STYLE
    + """body{max-width:1240px;margin:0 auto;padding:24px 24px 60px}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:34px 0 8px}
.note{font-size:13.5px;max-width:90ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:3px 9px;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{border-bottom:1px solid var(--ink)}
.texts th{white-space:normal;vertical-align:bottom}.texts :is(th,td):nth-child(-n+3){text-align:left}
th.group{text-align:center;border-bottom:1px solid var(--line)}tr.first td{border-top:1px solid var(--line)}
tr.spread td{color:var(--soft);font-size:12px;padding-top:0}tr.paper td{color:var(--soft);font-style:italic}
tr.limit td{color:var(--soft)}
tr.lost td{color:var(--lost)}figure{margin:0}figcaption{color:var(--soft);font-size:13.5px;max-width:90ch;
margin-top:6px}
@media(max-width:600px){body{padding:14px 10px 40px}}"""
)


def print_table1(cfg: DictConfig) -> None:
    """Print Table 1 of a sweep and write its report."""
    if cfg.sweep is None:
        raise SpectangleError(
            "sweep is missing; give the folder of the runs: spectangle report kind=table1 sweep=runs/table1."
        )
    table, runs = collect(cfg.sweep)
    if cfg.baselines:
        add_baselines(table, runs, cache_folder(), survey=cfg.survey)
    folder = Path(cfg.output or Path(cfg.sweep) / "table1")
    grids = [*paper_grids(table), leakage_grid(table), ratio_grid(table)]
    if attributes := attribute_grid(table):
        grids.append(attributes)
    for grid in grids:
        for piece in terminal_tables(grid, console.width if console.is_terminal else WIDEST):
            console.print(render(piece), markup=False, soft_wrap=True, highlight=False)
    for note in table.notes:
        console.print(f"note: {note}", markup=False)
    figures = list(report_figures(table, runs, cfg.tsne_stars, cfg.survey)) if cfg.figures else []
    write_tables(table, grids, folder, str(cfg.sweep))
    pictures = [(one, save(one.figure, folder / "figures" / one.name)[1]) for one in figures]
    write_beside(folder / "report.html", _page(table, grids, pictures, str(cfg.sweep)))
    console.print(
        f"written: {folder}/report.html, table1.csv, .ecsv, .tex, .md{', figures/' if figures else ''}", markup=False
    )


def write_tables(table: Table1, grids: Sequence[Grid], folder: Path, sweep: str) -> None:
    """Write the tables as CSV and ECSV (every number) and as LaTeX and Markdown (what is printed)."""
    numbers = number_table(table, sweep)
    write_beside(folder / "table1.csv", table_text(numbers, "ascii.csv"))
    write_beside(folder / "table1.ecsv", table_text(numbers, "ascii.ecsv"))
    write_beside(folder / "table1.tex", latex_text(grids))
    notes = "".join(f"\nNote: {note}\n" for note in table.notes)
    write_beside(folder / "table1.md", "\n".join(markdown_text(grid) for grid in grids) + notes)


def _page(table: Table1, grids: Sequence[Grid], figures: Sequence[tuple[ReportFigure, Path]], sweep: str) -> str:
    """One HTML file that asks the network for nothing."""
    notes = "".join(f"<p class=note>Note: {html.escape(note)}</p>" for note in table.notes)
    pictures = "".join(
        f"<figure><h2 id='{html.escape(one.name)}'>{html.escape(one.heading)}</h2>"
        f"<img alt='{html.escape(one.heading)}' src='{data_uri(picture)}'>"
        f"<figcaption>{html.escape(one.caption)}</figcaption></figure>"
        for one, picture in figures
    )
    names = [
        (grid.name, SHORT.get(grid.name, grid.title.removeprefix("The same for the ").capitalize())) for grid in grids
    ]
    links = " · ".join(
        f"<a href='#{html.escape(name)}'>{html.escape(words)}</a>"
        for name, words in [*names, *((one.name, one.heading) for one, _ in figures)]
    )
    body = (
        f"<p class=soft>{html.escape(sweep)}. {SOURCE}</p><p "
        f"class=note>{links}</p>{notes}{''.join(html_text(grid) for grid in grids)}{pictures}"
    )
    head = (
        "<meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'><title>Table 1: "
        f"{html.escape(sweep)}</title>"
    )
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head>"
        f"<body><h1>What each latent space keeps, and what it has lost</h1>{body}</body></html>"
    )
