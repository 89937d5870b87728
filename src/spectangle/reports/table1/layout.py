"""The tables of the report on Table 1, as grids of text.

The paper's layout: labels as rows, representations as groups of columns (MAE, mean, sigma). Below each row its spread
over seeds, the physical limit of what can be read from the spectra where it is known, and the paper's own numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from spectangle.evaluation.leakage import LEAST_REFERENCE
from spectangle.metrics import number
from spectangle.reports.table1.collect import (
    ATTRIBUTE,
    LEAKAGE,
    LIMIT,
    PAPER,
    PAPERS_NETWORK,
    PURE,
    SPECTRA,
    STATISTICS,
    Representation,
    Table1,
)

__all__ = ["WORDS", "Grid", "attribute_grid", "leakage_grid", "long_rows", "paper_grids", "ratio_grid"]

PRINTED = ("mae", "mean", "sigma")
PAPERS_LABELS = {label for _, label in PAPER}
WORDS = {"teff": "T_eff", "logg": "log g", "m_h": "[M/H]", "fe_h": "[Fe/H]", "alpha_fe": "[alpha/Fe]"}


@dataclass(frozen=True)
class Grid:
    """A table of text: title, groups of columns (title, width), headings, rows of cells, what kind each row is, a
    note.
    """

    name: str
    title: str
    groups: list[tuple[str, int]]
    headings: list[str]
    rows: list[list[str]]
    kinds: list[str]
    note: str = ""


def paper_grids(table: Table1) -> list[Grid]:
    """Table 1 in the paper's layout; representations that the paper lacks follow in grids of four."""
    paper = [one for one in table.representations if one.of_the_paper]
    others = [one for one in table.representations if not one.of_the_paper and one != LIMIT]
    grids = [
        _paper_grid(
            table, paper, "table1", "Table 1: predicted \N{MINUS SIGN} catalogue, downstream regressor on test stars"
        )
    ]
    parts = range(0, len(others), 4)
    for start in parts:
        part = f" ({start // 4 + 1} of {len(parts)})" if len(parts) > 1 else ""
        title = f"The same for the baselines and further latents{part}"
        grids.append(_paper_grid(table, others[start : start + 4], f"baselines{start // 4 + 1}", title))
    return grids


def _paper_grid(table: Table1, columns: Sequence[Representation], name: str, title: str) -> Grid:
    rows = [row for label in table.labels for row in _label_rows(table, columns, label)]
    kinds = [kind for kind, _ in rows]
    groups = [("", 1), *((_heading(one), 3) for one in columns)]
    headings = ["label", *(["MAE", "mean", "sigma"] * len(columns))]
    note = _paper_note(table, columns, kinds) if name == "table1" else ""
    return Grid(name, title, groups, headings, [cells for _, cells in rows], kinds, note)


def _label_rows(table: Table1, columns: Sequence[Representation], label: str) -> list[tuple[str, list[str]]]:
    """(kind, cells) of a label's own row and of those below it: spread, what the paper's network reads, limit, the
    paper's numbers."""
    unit = table.units.get(label, "")
    cells = [table.cell(one, f"{label}/{statistic}") for one in columns for statistic in PRINTED]
    rows = [("value", [_label(label, unit), *(_value(cell.mean if cell else None, unit) for cell in cells)])]
    if any(cell and cell.spread is not None for cell in cells):
        spread = [_spread(cell.spread if cell else None, unit) for cell in cells]
        rows.append(("spread", ["\N{PLUS-MINUS SIGN} seeds", *spread]))
    if SPECTRA in columns and table.cell(LIMIT, f"{label}/mae"):
        limit = [_value(table.mean(LIMIT, f"{label}/{statistic}"), unit) for statistic in PRINTED]
        rows.append(("limit", ["limit", *(value if one == SPECTRA else "" for one in columns for value in limit)]))
    network = [table.mean(one, f"{label}/{PAPERS_NETWORK}/{statistic}") for one in columns for statistic in PRINTED]
    if label in PAPERS_LABELS and any(value is not None for value in network):
        rows.append(("network", ["paper's network", *(_value(value, unit) for value in network)]))
    if any((one.key, label) in PAPER for one in columns):
        paper = [value for one in columns for value in PAPER.get((one.key, label), (None,) * 3)]
        rows.append(("paper", ["paper", *(number(value, unit) for value in paper)]))
    return rows


def _paper_note(table: Table1, columns: Sequence[Representation], kinds: Sequence[str]) -> str:
    seeds = max((len(table.values[one]) for one in columns), default=0)
    note = f"Mean and standard deviation over {seeds} seeds. " if seeds > 1 else "One seed. "
    if "limit" in kinds:
        note += "Limit: what the best possible reader of the spectra would have. "
    if "network" in kinds:
        note += "Paper's network: what scikit-learn's 200-100 network reads, as in the paper. "
    if "paper" in kinds:
        note += (
            "The paper's sigma is not the standard deviation of the residuals (six of its 16 are too small for that); "
            "compare MAE and mean."
        )
    return note


def leakage_grid(table: Table1) -> Grid:
    """What the strongest probe still reads from each latent, against the floor that the population implies."""
    headings = [
        "representation",
        "label",
        "",
        "probes R2",
        "permuted labels",
        "raw spectra",
        "floor",
        "excess",
        "lost",
        "retention",
    ]
    counts = {cell.mean for one in table.values for name in table.labels if (cell := table.cell(one, f"{name}/stars"))}
    differ = len(counts) > 1  # some stars lack labels
    headings += ["stars"] * differ
    rows, kinds = [], []
    for one in table.representations:
        for label in table.labels:
            if one == SPECTRA or table.cell(one, f"{label}/probe") is None:
                continue
            cells = [table.cell(one, f"{label}/{name}") for name in LEAKAGE]
            rows.append(
                [
                    one.title,
                    _label(label),
                    table.role(one, label),
                    *(_with_spread(cell.mean, cell.spread) if cell else "" for cell in cells),
                    *([_stars(table, one, label)] if differ else []),
                ]
            )
            kinds.append(table.role(one, label) or "value")
    note = (
        "Floor: R2 from the kept labels alone. Excess: R2 from (z, kept labels) minus the floor, on stars never seen. "
        "Lost: the share of what the same probes read from the raw spectra (R2) that they do not find in the latent; "
        "retention: the share that they do; blank where the spectra do not hold the label (R2 below "
        f"{LEAST_REFERENCE}). "
        "Test stars; \N{PLUS-MINUS SIGN} is the standard deviation over seeds."
    )
    return Grid("probes", "What each latent keeps and what it has lost", [], headings, rows, kinds, note)


def attribute_grid(table: Table1) -> Grid | None:
    """What probes read of each attribute, such as the instrument; None: the runs have none."""
    shown = [
        (one, name)
        for one in table.representations
        for name in table.attributes
        if table.cell(one, f"{name}/balanced_accuracy") is not None
    ]
    if not shown:
        return None
    rows = []
    for one, name in shown:
        cells = [table.cell(one, f"{name}/{word}") for word in (*ATTRIBUTE, "floor", "excess")]
        numbers = (_with_spread(cell.mean, cell.spread) if cell else "" for cell in cells)
        rows.append([one.title, name, table.role(one, name), *numbers, _stars(table, one, name)])
    return Grid(
        "attributes",
        "What each latent knows of attributes",
        [],
        ["representation", "attribute", "", "balanced accuracy", "chance", "raw spectra", "floor", "excess", "stars"],
        rows,
        [table.role(one, name) or "value" for one, name in shown],
        "Balanced accuracy of the probes and of the same probes on raw spectra. Floor and excess: R2 of the class. "
        "Test stars.",
    )


def _stars(table: Table1, one: Representation, name: str) -> str:
    """How many test stars the probes of a label or an attribute rest on."""
    cell = table.cell(one, f"{name}/stars")
    return "" if cell is None else f"{cell.mean:,.0f}"


def ratio_grid(table: Table1) -> Grid:
    """MAE over that of the raw spectra, of the pure latent and of the physical limit where it is known, beside the
    paper's ratios if it has any of the labels, and the cost in reconstruction.
    """
    limit = LIMIT in table.values
    paper = ["spectra", "pure"] if any((SPECTRA.key, label) in PAPER for label in table.labels) else []
    headings = ["representation", "label", "", "MAE", "over spectra", "over pure"]
    headings += ["over limit"] * limit
    headings += ["paper: over spectra", "paper: over pure"] * bool(paper) + ["reconstruction over pure"]
    shown = [
        (one, label)
        for one in table.representations
        for label in table.labels
        if one != SPECTRA and table.cell(one, f"{label}/mae") is not None
    ]
    return Grid(
        "gains",
        "What it gains and what it costs",
        [],
        headings,
        [_ratio_row(table, one, label, paper, limit) for one, label in shown],
        [table.role(one, label) or "value" for one, label in shown],
        "Ratios of mean absolute errors; below 1 is better. Reconstruction is that of validation stars.",
    )


def _ratio_row(table: Table1, one: Representation, label: str, paper: Sequence[str], limit: bool) -> list[str]:
    path, unit = f"{label}/mae", table.units.get(label, "")
    cell = table.cell(one, path)
    assert cell is not None
    ratios = [
        table.ratio(one, SPECTRA, path),
        table.ratio(one, PURE, path),
        *([table.ratio(one, LIMIT, path)] if limit else []),
        *(_paper_ratio(one, label, to) for to in paper),
        table.ratio(one, PURE, "reconstruction") if label == table.labels[0] else None,
    ]
    mae = _with_spread(cell.mean, cell.spread, unit)
    return [one.title, _label(label, unit), table.role(one, label), mae, *map(_ratio, ratios)]


def long_rows(table: Table1) -> tuple[list[str], list[list]]:
    """Everything, one row per representation and label, for machines."""
    names = [*STATISTICS, *LEAKAGE, *(ATTRIBUTE if table.attributes else ())]
    columns = [
        "representation",
        "title",
        "label",
        "unit",
        "role",
        "seeds",
        *(c for name in names for c in (name, f"{name}_spread")),
    ]
    columns += ["reconstruction", "reconstruction_spread", "stars", "paper_mae", "paper_mean", "paper_sigma"]
    rows = []
    for one in table.representations:
        known = [name for name in table.attributes if table.cell(one, f"{name}/balanced_accuracy")]
        for label in (*table.labels, *known):
            cells = [table.cell(one, f"{label}/{name}") for name in names] + [table.cell(one, "reconstruction")]
            numbers = [value for cell in cells for value in ((cell.mean, cell.spread) if cell else (None, None))]
            facts = [
                one.key,
                one.title,
                label,
                table.units.get(label, ""),
                table.role(one, label),
                len(table.values[one]),
            ]
            numbers.append(table.mean(one, f"{label}/stars"))
            rows.append([*facts, *numbers, *PAPER.get((one.key, label), (None,) * 3)])
    return columns, rows


def _heading(one: Representation) -> str:
    return (
        f"{one.title} (keeps {', '.join(WORDS.get(name, name) for name in one.entangled)})"
        if one.key in ("first", "second")
        else one.title
    )


def _label(label: str, unit: str = "") -> str:
    name = WORDS.get(label, label)
    return f"{name} ({unit})" if unit else name


def _value(value: float | None, unit: str) -> str:
    text = number(value, unit)
    return text.removeprefix("-") if text.strip("-0.") == "" and text != "-" else text


def _spread(value: float | None, unit: str) -> str:
    """The spread, in kelvin with a digit more than the value, so that it does not read as zero."""
    if value is None:
        return ""
    return f"{value:.1f}" if unit == "K" else number(value, unit)


def _with_spread(mean: float, spread: float | None, unit: str = "") -> str:
    text = _value(mean, unit)
    return text if spread is None else f"{text} \N{PLUS-MINUS SIGN} {_spread(spread, unit)}"


def _paper_ratio(one: Representation, label: str, reference: str) -> float | None:
    pair = PAPER.get((one.key, label)), PAPER.get((reference, label))
    return None if None in pair else pair[0][0] / pair[1][0]  # pyright: ignore


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
