"""The report page of a sample: counts, funnel, Figs. 3-5 of the paper, S/N, a few spectra; one HTML file."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from spectangle.figures.predictions import diagram_axes
from spectangle.figures.style import data_uri, symbol
from spectangle.figures.survey_figures import diagram_figure, label_figure, noise_figure, spectra_figure
from spectangle.files import write_beside
from spectangle.page_style import PAGE_STYLE
from spectangle.survey.file import Survey

if TYPE_CHECKING:
    from spectangle.archives.prepared import Prepared

__all__ = ["label_gaps", "write_report"]

STYLE = (
    PAGE_STYLE
    + """body{max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid var(--line)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}td,th{padding:.2rem .6rem;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.first td{border-top:1px solid var(--line)}code{overflow-wrap:anywhere}"""
)
LABELS_IN_A_LINE = 2  # beside a spectrum


def write_report(result: "Prepared", max_stars: int = 100_000) -> Path:
    """Write ``<survey>.html`` beside the survey; at most `max_stars` are drawn."""
    path = result.survey.with_suffix(".html")
    with Survey(result.survey) as survey:
        body = "".join(_sections(result, survey, max_stars))
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(path.stem)}</title><style>{STYLE}</style><body>{body}</body></html>"
    )
    write_beside(path, page)
    return path


def _sections(result: "Prepared", survey: Survey, max_stars: int):
    origin = np.char.decode(survey.column("label_origin"), "utf-8")
    step = max(1, -(-len(survey) // max_stars))
    labels = {name: survey.label(name) for name in survey.labels}
    yield f"<h1>The sample of {html.escape(result.survey.name)}</h1>"
    blue, red = np.asarray(survey.wavelength)[[0, -1]]
    source = html.escape(survey.attributes["origin"])
    yield f"<p>{len(survey):,} stars, {survey.n_pixels} pixels from {blue:.3f} to {red:.3f} nm (vacuum); {source}.</p>"
    yield f"<p class=note>Made by <code>{html.escape(survey.attributes['created_by'])}</code></p>"
    yield "<h2>Counts</h2>" + _counts(result)
    yield "<h2>Funnel</h2>" + _funnel(result)
    if result.overlaps:
        yield "<h2>Stars in two catalogues</h2>" + _overlaps(result)
    units = {name: survey.unit(name) for name in labels}
    figure = dict.fromkeys((3, 4, 5), "")  # of the paper, whose sample this is
    if result.funnel.has_paper:
        figure = {number: f" (Fig. {number} of the paper)" for number in figure}
    yield f"<h2>Labels{figure[3]}</h2>" + _image(label_figure(labels, units, origin))
    if gaps := label_gaps(survey):
        yield f"<p>Labels are missing: {html.escape(gaps)}.</p>"
    some = {name: values[::step] for name, values in labels.items()}
    for x, y, colour in diagram_axes(labels):
        title = f"Kiel diagram{figure[4]}" if y == "logg" else f"[alpha/Fe] and metallicity{figure[5]}"
        yield f"<h2>{title}</h2>" + _image(diagram_figure(some, units, x, y, colour))
    snr = survey.column("rvs_snr")
    if np.isfinite(snr).any():
        yield "<h2>Signal to noise</h2>" + _image(noise_figure(snr[::step], survey.column("phot_g_mean_mag")[::step]))
    yield "<h2>A few spectra</h2>" + _image(_example_spectra(survey, labels, units))
    if result.bad.sentences:
        shown = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.bad.sentences[:50])
        yield f"<h2>Rows skipped: {result.bad.count}</h2><ul>{shown}</ul>"
    if result.left_out:
        shown = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.left_out)
        yield (
            f"<h2>Not in the survey: {len(result.left_out)}</h2><details><summary>each with its "
            f"reason</summary><ul>{shown}</ul></details>"
        )


def label_gaps(survey: Survey) -> str:
    """How many stars lack which label, in words; empty if none does."""
    lacking = {name: int(np.isnan(survey.label(name)).sum()) for name in survey.labels}
    return ", ".join(f"{name} of {n:,} stars" for name, n in lacking.items() if n)


def _example_spectra(survey: Survey, labels: Mapping[str, np.ndarray], units: Mapping[str, str], n: int = 6) -> Figure:
    """A few spectra from the smallest to the largest first label; identifier and labels stand beside the frame."""
    first = next(iter(labels))
    order = np.argsort(labels[first])  # without a label: last
    rows = order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)]
    flux = np.concatenate([survey.flux(row, row + 1) for row in rows])
    ids = survey.source_id
    titles = [f"{ids[row]}\n{_labels_in_lines(labels, units, row)}" for row in rows]
    return spectra_figure(np.asarray(survey.wavelength), flux, titles)


def _labels_in_lines(labels: Mapping[str, np.ndarray], units: Mapping[str, str], row: int) -> str:
    """Labels that a star has, with their units."""
    known = {name: values[row] for name, values in labels.items() if np.isfinite(values[row])}
    words = [f"{symbol(name)} {value:.4g} {units[name]}".rstrip() for name, value in known.items()]
    return "\n".join(", ".join(words[j : j + LABELS_IN_A_LINE]) for j in range(0, len(words), LABELS_IN_A_LINE))


def _counts(result: "Prepared") -> str:
    tally = result.tally
    rows = [
        ("spectra in the files", tally.rows),
        ("labelled stars with a spectrum", tally.found),
        ("stars in the survey", tally.after_snr),
        ("pixels that no star has, left out", tally.empty_pixels),
        ("bad rows skipped", result.bad.count),
    ]
    if tally.median_normalised is not None:
        rows.insert(3, ("of these, scaled to a median of 1, as Gaia does with cool stars", tally.median_normalised))
    return (
        "<div class=scroll><table>"
        + "".join(f"<tr><td>{name}</td><td class=n>{number:,}</td></tr>" for name, number in rows)
        + "</table></div>"
    )


def _funnel(result: "Prepared") -> str:
    names = "<th>of</th><th>step</th><th class=n>stars left</th><th class=n>removed</th>"
    names += "<th class=n>the paper has</th>" if result.funnel.has_paper else ""
    lines, previous = [f"<div class=scroll><table><tr>{names}</tr>"], None
    for step in result.funnel.steps:
        first = step["part"] != previous
        previous = step["part"]
        cells = (
            f"<td>{html.escape(step['part']) if first else ''}</td><td>{html.escape(step['step'])}</td><td "
            f"class=n>{step['left']:,}</td>"
        )
        removed, paper = (f"{step[key]:,}" if step[key] else "" for key in ("removed", "paper"))
        cells += f"<td class=n>{removed}</td>" + (f"<td class=n>{paper}</td>" if result.funnel.has_paper else "")
        lines.append(f"<tr{' class=first' if first else ''}>{cells}</tr>")
    return "".join(lines) + "</table></div>"


def _overlaps(result: "Prepared") -> str:
    lines = [
        "<div class=scroll><table><tr><th>difference</th><th class=n>stars</th><th>label</th><th class=n>mean</th><th "
        "class=n>sigma</th></tr>"
    ]
    for overlap in result.overlaps:
        for index, name in enumerate(overlap.mean):
            pair = f"{html.escape(overlap.first)} - {html.escape(overlap.second)}" if index == 0 else ""
            number = f"{overlap.n_stars:,}" if index == 0 else ""
            values = f"<td class=n>{overlap.mean[name]:+.3g}</td><td class=n>{overlap.sigma[name]:.3g}</td>"
            lines.append(f"<tr><td>{pair}</td><td class=n>{number}</td><td>{name}</td>{values}</tr>")
    return "".join(lines) + "</table></div>"


def _image(figure: Figure) -> str:
    return f"<img alt='' src='{data_uri(figure)}'>"
