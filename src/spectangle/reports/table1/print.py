"""The report on Table 1: spectangle report kind=table1 sweep=DIR

Tables as CSV, ECSV, LaTeX and Markdown, figures as PDF and PNG, and one page that carries everything inside itself.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from spectangle.caching import cache_folder
from spectangle.console import console, render
from spectangle.errors import SpectangleError
from spectangle.figures import data_uri, save
from spectangle.files import write_beside
from spectangle.reports.table1.baselines import add_baselines
from spectangle.reports.table1.collect import Table1, collect
from spectangle.reports.table1.figures import report_figures
from spectangle.reports.table1.layout import Grid, attribute_grid, leakage_grid, paper_grids, ratio_grid
from spectangle.reports.table1.text import (
    html_text,
    latex_text,
    markdown_text,
    number_table,
    table_text,
    terminal_table,
)

__all__ = ["print_table1", "write_tables"]

SOURCE = (
    "Manteiga et al. 2025, A&amp;A 694, A326, section 3.3. "
    "First pair: T_eff and log g kept, [M/H] and [alpha/Fe] lost; second pair: the other way round."
)
STYLE = """:root{--ink:#1a1f2b;--soft:#5b6475;--line:#d8dde6}*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:0 auto;padding:24px 24px 60px;color:var(--ink);
background:#fff}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:34px 0 8px}.soft,.note{color:var(--soft)}
.note{font-size:13.5px;max-width:90ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:3px 9px;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{border-bottom:1px solid var(--ink)}
.texts :is(th,td):nth-child(-n+3){text-align:left}
th.group{text-align:center;border-bottom:1px solid var(--line)}tr.first td{border-top:1px solid var(--line)}
tr.spread td{color:var(--soft);font-size:12px;padding-top:0}tr.paper td{color:var(--soft);font-style:italic}
tr.limit td{color:var(--soft)}
tr.lost td{color:#a04000}figure{margin:0}img{max-width:100%;height:auto}figcaption{color:var(--soft);
font-size:13.5px;max-width:90ch}"""


def print_table1(cfg: DictConfig) -> None:
    """Print Table 1 of a sweep and write its report."""
    if cfg.sweep is None:
        raise SpectangleError(
            "sweep is missing; give the folder of the runs: spectangle report kind=table1 sweep=runs/table1."
        )
    table, runs = collect(cfg.sweep)
    if cfg.baselines:
        add_baselines(table, runs, cache_folder())
    folder = Path(cfg.output or Path(cfg.sweep) / "table1")
    grids = [*paper_grids(table), leakage_grid(table), ratio_grid(table)]
    if attributes := attribute_grid(table):
        grids.append(attributes)
    for grid in grids:
        console.print(render(terminal_table(grid)), markup=False, soft_wrap=True, highlight=False)
    for note in table.notes:
        console.print(f"note: {note}", markup=False)
    figures = list(report_figures(table, runs, cfg.tsne_stars)) if cfg.figures else []
    write_tables(table, grids, folder, str(cfg.sweep))
    pictures = [(name, save(figure, folder / "figures" / name)[1], caption) for name, figure, caption in figures]
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


def _page(table: Table1, grids: Sequence[Grid], figures: Sequence[tuple[str, Path, str]], sweep: str) -> str:
    """One HTML file that asks the network for nothing."""
    notes = "".join(f"<p class=note>Note: {html.escape(note)}</p>" for note in table.notes)
    pictures = "".join(
        f"<figure><h2 id='{name}'>{html.escape(_title(name))}</h2><img alt='{html.escape(_title(name))}' "
        f"src='{data_uri(picture)}'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, picture, caption in figures
    )
    links = " · ".join(
        f"<a href='#{name}'>{html.escape(name.replace('_', ' '))}</a>"
        for name in [*(g.name for g in grids), *(f[0] for f in figures)]
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


def _title(name: str) -> str:
    words = {
        "tsne_first_pair": "t-SNE, first pair",
        "tsne_second_pair": "t-SNE, second pair",
        "kiel_chemical": "Kiel and chemical diagrams",
    }
    words |= {
        "residual_snr": "Residual against S/N",
        "information": "Latent dimension by label",
        "frontier": "What disentangling costs the entangled labels",
    }
    return words.get(name, name.replace("_", " ").capitalize())
