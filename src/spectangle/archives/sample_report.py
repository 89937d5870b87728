"""The report page of a sample: counts, funnel, Figs. 3-5 of the paper, S/N, a few spectra; one HTML file.

Figures take arrays and return a matplotlib Figure. Manteiga et al. 2025, A&A 694, A326: Fig. 3 (histograms of the four
labels), Fig. 4 (Kiel diagram), Fig. 5 ([alpha/Fe] against [M/H]).
"""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from spectangle.survey import Survey

if TYPE_CHECKING:
    from spectangle.archives.preparation import Prepared

__all__ = ["abundance_figure", "kiel_figure", "label_figure", "noise_figure", "spectra_figure", "write_report"]

NAMES = {"teff": "$T_{\\mathrm{eff}}$", "logg": "$\\log g$", "m_h": "[M/H]", "alpha_fe": "[$\\alpha$/Fe]"}
COLOURS = ("#3b6ea5", "#c8553d", "#5a8f5a", "#8a5a9e")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .6rem;text-align:left}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.first td{border-top:1px solid #ccc}img{max-width:100%}.note{color:#666}"""


def label_figure(labels: Mapping[str, np.ndarray], units: Mapping[str, str], origin: np.ndarray) -> Figure:
    """Histograms of each label [N], by catalogue [N] (Fig. 3)."""
    figure = Figure(figsize=(10, 2.9 * ((len(labels) + 1) // 2)), layout="constrained")
    for index, (name, values) in enumerate(labels.items()):
        axes = figure.add_subplot((len(labels) + 1) // 2, 2, index + 1)
        bins = np.linspace(values.min(), values.max() + 1e-6, 51)
        axes.hist(values, bins=bins, color="#dddddd", label="all")
        for i, which in enumerate(np.unique(origin)):
            axes.hist(values[origin == which], bins=bins, histtype="step", linewidth=1.3, color=COLOURS[i % 4], label=which)
        axes.set(xlabel=_title(name, units), ylabel="stars", yscale="log")
        if index == 0:
            axes.legend(frameon=False)
    return figure


def kiel_figure(teff: np.ndarray, logg: np.ndarray, m_h: np.ndarray) -> Figure:
    """Surface gravity against effective temperature [N], coloured by [M/H] (Fig. 4)."""
    return _scatter(teff, logg, m_h, "$T_{\\mathrm{eff}}$ [K]", "$\\log g$ [dex]", "[M/H] [dex]", inverted=True)


def abundance_figure(m_h: np.ndarray, alpha_fe: np.ndarray, teff: np.ndarray) -> Figure:
    """[alpha/Fe] against [M/H] [N], coloured by effective temperature (Fig. 5)."""
    return _scatter(m_h, alpha_fe, teff, "[M/H] [dex]", "[$\\alpha$/Fe] [dex]", "$T_{\\mathrm{eff}}$ [K]", inverted=False)


def noise_figure(snr: np.ndarray, g_mag: np.ndarray) -> Figure:
    """Histogram of S/N [N], and S/N against G [N]."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    good = np.isfinite(snr) & (snr > 0)
    left.hist(snr[good], bins=np.geomspace(snr[good].min(), snr[good].max() * 1.001, 40) if good.any() else 10, color=COLOURS[0])
    left.set(xlabel="S/N per archive pixel", ylabel="stars", xscale="log")
    right.plot(g_mag[good], snr[good], "." if good.sum() < 3000 else ",", color=COLOURS[0])
    right.set(xlabel="$G$ [mag]", ylabel="S/N", yscale="log")
    for axis in (left.xaxis, right.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    return figure


def spectra_figure(wavelength: np.ndarray, flux: np.ndarray, titles: list[str]) -> Figure:
    """A few spectra [n, P] one above the other, gaps where pixels are masked."""
    figure = Figure(figsize=(10, 1.2 + 0.9 * len(flux)), layout="constrained")
    axes = figure.subplots()
    for index, (spectrum, title) in enumerate(zip(flux, titles, strict=True)):
        axes.plot(wavelength, spectrum + index, color=COLOURS[index % 4], linewidth=0.8)
        axes.text(wavelength[-1], np.nanmedian(spectrum) + index + 0.08, title, ha="right", fontsize=8)
    axes.set(xlabel="wavelength [nm], vacuum", ylabel="flux + constant", xlim=(wavelength[0], wavelength[-1]))
    return figure


def write_report(result: "Prepared", max_stars: int = 100_000) -> Path:
    """Write ``<survey>.html`` beside the survey; at most `max_stars` are drawn."""
    path = result.survey.with_suffix(".html")
    with Survey(result.survey) as survey:
        body = "".join(_sections(result, survey, max_stars))
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(path.stem)}</title><style>{STYLE}</style><body>{body}</body></html>"
    beside = path.with_name(path.name + ".part")
    beside.write_text(page, encoding="utf-8")
    beside.replace(path)
    return path


def _sections(result: "Prepared", survey: Survey, max_stars: int):
    origin = np.char.decode(survey.column("label_origin").astype("S64"), "utf-8")
    step = max(1, -(-len(survey) // max_stars))
    labels = {name: survey.label(name) for name in survey.labels}
    yield f"<h1>The sample of {html.escape(result.survey.name)}</h1>"
    blue, red = np.asarray(survey.wavelength)[[0, -1]]
    yield f"<p>{len(survey):,} stars, {survey.n_pixels} pixels from {blue:.3f} to {red:.3f} nm (vacuum); {html.escape(survey.attributes['origin'])}.</p>"
    yield f"<p class=note>Made by <code>{html.escape(survey.attributes['created_by'])}</code></p>"
    yield "<h2>Counts</h2>" + _counts(result)
    yield "<h2>Funnel</h2>" + _funnel(result)
    if result.overlaps:
        yield "<h2>Stars in two catalogues</h2>" + _overlaps(result)
    yield "<h2>Labels (Fig. 3 of the paper)</h2>" + _image(label_figure(labels, {name: survey.unit(name) for name in labels}, origin))
    if {"teff", "logg", "m_h"} <= set(labels):
        yield "<h2>Kiel diagram (Fig. 4)</h2>" + _image(kiel_figure(*(labels[name][::step] for name in ("teff", "logg", "m_h"))))
    if {"teff", "m_h", "alpha_fe"} <= set(labels):
        yield "<h2>[alpha/Fe] and [M/H] (Fig. 5)</h2>" + _image(abundance_figure(*(labels[name][::step] for name in ("m_h", "alpha_fe", "teff"))))
    snr = survey.column("rvs_snr")
    if np.isfinite(snr).any():
        yield "<h2>Signal to noise</h2>" + _image(noise_figure(snr[::step], survey.column("phot_g_mean_mag")[::step]))
    yield "<h2>A few spectra</h2>" + _image(_example_spectra(survey, labels))
    if result.bad.sentences:
        shown = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.bad.sentences[:50])
        yield f"<h2>Rows skipped: {result.bad.count}</h2><ul>{shown}</ul>"


def _example_spectra(survey: Survey, labels: Mapping[str, np.ndarray], n: int = 6) -> Figure:
    first = next(iter(labels))
    order = np.argsort(labels[first])
    rows = order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)]
    flux = np.concatenate([survey.flux(row, row + 1) for row in rows])
    ids = survey.source_id
    titles = [f"{ids[row]}: " + ", ".join(f"{name} {labels[name][row]:.4g}" for name in labels) for row in rows]
    return spectra_figure(np.asarray(survey.wavelength), flux, titles)


def _counts(result: "Prepared") -> str:
    tally = result.tally
    rows = [
        ("spectra in the files", tally.rows),
        ("labelled stars with a spectrum", tally.found),
        ("stars in the survey", tally.after_snr),
        ("of these, scaled to their median (cool stars)", tally.median_normalised),
        ("pixels that no star has, left out", tally.empty_pixels),
        ("bad rows skipped", result.bad.count),
    ]
    return "<table>" + "".join(f"<tr><td>{name}</td><td class=n>{number:,}</td></tr>" for name, number in rows) + "</table>"


def _funnel(result: "Prepared") -> str:
    names = "<th>of</th><th>step</th><th class=n>stars left</th><th class=n>removed</th><th class=n>the paper has</th>"
    lines, previous = [f"<table><tr>{names}</tr>"], None
    for step in result.funnel.steps:
        first = step["part"] != previous
        previous = step["part"]
        cells = f"<td>{html.escape(step['part']) if first else ''}</td><td>{html.escape(step['step'])}</td><td class=n>{step['left']:,}</td>"
        removed, paper = (f"{step[key]:,}" if step[key] else "" for key in ("removed", "paper"))
        lines.append(f"<tr{' class=first' if first else ''}>{cells}<td class=n>{removed}</td><td class=n>{paper}</td></tr>")
    return "".join(lines) + "</table>"


def _overlaps(result: "Prepared") -> str:
    lines = ["<table><tr><th>difference</th><th class=n>stars</th><th>label</th><th class=n>mean</th><th class=n>sigma</th></tr>"]
    for overlap in result.overlaps:
        for index, name in enumerate(overlap.mean):
            pair = f"{html.escape(overlap.first)} - {html.escape(overlap.second)}" if index == 0 else ""
            number = f"{overlap.n_stars:,}" if index == 0 else ""
            values = f"<td class=n>{overlap.mean[name]:+.3g}</td><td class=n>{overlap.sigma[name]:.3g}</td>"
            lines.append(f"<tr><td>{pair}</td><td class=n>{number}</td><td>{name}</td>{values}</tr>")
    return "".join(lines) + "</table>"


def _scatter(x, y, colour, x_name: str, y_name: str, colour_name: str, inverted: bool) -> Figure:
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.nanpercentile(colour, [1, 99])
    points = axes.scatter(
        x, y, c=colour, s=2 if len(x) > 3000 else 10, cmap="viridis", vmin=low, vmax=max(high, low + 1e-6), linewidths=0, rasterized=True
    )
    figure.colorbar(points, ax=axes, label=colour_name)
    axes.set(xlabel=x_name, ylabel=y_name)
    if inverted:
        axes.invert_xaxis()
        axes.invert_yaxis()
    return figure


def _title(name: str, units: Mapping[str, str]) -> str:
    return f"{NAMES.get(name, name)} [{units[name]}]" if units.get(name) else NAMES.get(name, name)


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
