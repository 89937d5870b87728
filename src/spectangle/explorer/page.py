"""The Bokeh models of the page: figures, sliders and buttons, each named; explorer.js brings them to life in the
browser.
"""

import math
from typing import Any

from bokeh.document import Document
from bokeh.events import DoubleTap, Pan, PanStart, Tap
from bokeh.models import (
    Button,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    HoverTool,
    LinearColorMapper,
    NumeralTickFormatter,
    RadioButtonGroup,
    Range1d,
    Select,
    Slider,
    Span,
    TapTool,
    TextInput,
)
from bokeh.plotting import figure

from spectangle.explorer.bundle import Bundle
from spectangle.explorer.label_words import short_title
from spectangle.explorer.palette import AXIS, CHANGED, GREY, GRID, INK, OBSERVED, RECONSTRUCTED, UNKNOWN

__all__ = ["build_page"]

WIDGETS = (
    ":host { font: 13px system-ui, sans-serif; color: #1d2733; } .bk-input { border-radius: 6px; } .bk-btn { "
    "border-radius: 6px; } .bk-slider-title { white-space: normal; overflow-wrap: anywhere; }"
)


def build_page(document: Document, bundle: Bundle) -> dict[str, Any]:
    """Add the page's models to a document; return them by name.

    The sources are not synchronised with a server: the browser decodes, and a slider sends nothing over an SSH tunnel.
    """
    payload = bundle.payload
    models: dict[str, Any] = {}
    models |= _spectrum(payload) | _latent(payload) | _maps(payload) | _widgets(payload)
    if len(payload["runs"]) == 2:
        models |= _compare(payload)
    models["request"], models["answer"] = ColumnDataSource({"id": []}), ColumnDataSource({"json": []})
    for name, model in models.items():
        model.name = name
    for name, model in models.items():
        if isinstance(model, ColumnDataSource) and name not in ("request", "answer"):
            model.syncable = False
    _connect(document, models)
    return models


def _spectrum(payload: dict[str, Any]) -> dict[str, Any]:
    """The spectra, and what the sliders changed."""
    spectra = ColumnDataSource({"x": [], "observed": [], "reconstructed": [], "changed": [], "difference": []})
    x_range = Range1d(start=0, end=1)
    plot = _figure(
        height=330,
        x_range=x_range,
        y_range=Range1d(start=0, end=1.2),
        y_axis_label="flux / continuum",
        tools="xbox_zoom,xwheel_zoom,reset,save",
    )
    plot.line("x", "observed", source=spectra, color=OBSERVED, width=1, legend_label="observed")
    plot.line("x", "reconstructed", source=spectra, color=RECONSTRUCTED, width=1.6, legend_label="reconstructed")
    front = plot.line(
        "x", "changed", source=spectra, color=CHANGED, width=1.8, legend_label="with your labels and latent"
    )
    values = [
        ("nm", "@x{0.00}"),
        ("observed", "@observed{0.000}"),
        ("reconstructed", "@reconstructed{0.000}"),
        ("yours", "@changed{0.000}"),
    ]
    plot.add_tools(
        CrosshairTool(dimensions="height", line_color=GREY), HoverTool(renderers=[front], mode="vline", tooltips=values)
    )
    _legend(plot, click_policy="hide", spacing=14)
    return {
        "spectra": spectra,
        "lines": _marks(plot, payload),
        "spectrum": plot,
        "legend": plot.legend[0],
        "difference": _difference(spectra, x_range, 130, "reset"),
    }


def _legend(plot: Any, **options: Any) -> None:
    plot.legend.update(
        location="bottom_left",
        orientation="horizontal",
        border_line_color=None,
        background_fill_alpha=0.85,
        label_text_font_size="12px",
        **options,
    )


def _marks(plot: Any, payload: dict[str, Any]) -> ColumnDataSource:
    """Names and places of strong lines; explorer.js sets their heights, and leaves out names that have no room."""
    marks = payload["lines"]
    nothing = [0.0] * len(marks)
    columns = {
        "x": [mark["wavelength"] for mark in marks],
        "name": [mark["species"] for mark in marks],
        "colour": [payload["colours"][mark["species"]] for mark in marks],
    }
    lines = ColumnDataSource(columns | {"y": nothing, "low": nothing})
    plot.segment("x", "low", "x", "y", source=lines, color="colour", alpha=0.45, line_dash="dotted", level="underlay")
    plot.text(
        "x",
        "y",
        "name",
        source=lines,
        color="colour",
        text_font_size="10px",
        text_align="center",
        text_baseline="bottom",
    )
    return lines


def _difference(
    source: ColumnDataSource, x_range: Range1d, height: int, tools: str = "", y_range: Range1d | None = None
) -> Any:
    """What the user's labels and latent change."""
    plot = _figure(
        height=height,
        x_range=x_range,
        y_range=y_range or Range1d(start=-0.1, end=0.1),
        x_axis_label="vacuum wavelength [nm]",
        y_axis_label="yours − reconstr.",
        tools=tools,
    )
    plot.toolbar_location = None
    plot.add_layout(Span(location=0, dimension="width", line_color=AXIS))
    plot.varea("x", 0, "difference", source=source, color=CHANGED, alpha=0.25)
    plot.line("x", "difference", source=source, color=CHANGED, width=1.4)
    return plot


def _latent(payload: dict[str, Any]) -> dict[str, Any]:
    """The latent as bars; dragging one is followed in JavaScript."""
    bars = ColumnDataSource({"i": [], "z": [], "own": [], "colour": []})
    z = payload["runs"][0]["latent"]["shape"][1]
    plot = _figure(
        height=210,
        x_range=Range1d(start=-0.7, end=z - 0.3),
        y_range=Range1d(start=-3.5, end=3.5),
        x_axis_label="latent number",
        y_axis_label="z",
        tools="",
    )
    plot.add_layout(Span(location=0, dimension="width", line_color=AXIS))
    plot.vbar("i", top="z", width=0.72, source=bars, color="colour")
    plot.scatter("i", "own", marker="dash", source=bars, size=14, color=INK, line_width=2)
    plot.toolbar_location = None
    plot.xaxis.ticker = list(range(0, z, 2 if z > 12 else 1))
    return {"bars": bars, "latent": plot}


def _maps(payload: dict[str, Any]) -> dict[str, Any]:
    """The Kiel diagram and the latent map, of the same stars; without teff and logg the first two labels, and of one
    label what is read from the latent.
    """
    labels, ends = payload["labels"], [0.0, 1.0]  # something for the axes to start from, until the page is ready
    columns = ("x", "y", "mx", "my", "value", "fill", "line")
    stars = ColumnDataSource(dict.fromkeys(columns, ends) | {"id": ["", ""], "name": ["", ""], "told": ["", ""]})
    place = ColumnDataSource({"x": [], "y": [], "mx": [], "my": []})
    names = [label["name"] for label in labels]
    first, second = ("teff", "logg") if {"teff", "logg"} <= set(names) else (names[0], names[min(1, len(names) - 1)])
    across, unit = labels[names.index(first)]["short"], labels[names.index(second)]["unit"]
    mapper = LinearColorMapper(palette="Viridis256", low=0, high=1, nan_color=UNKNOWN)
    kiel = _figure(
        height=280,
        min_border_left=0,
        x_axis_label=across,
        y_axis_label=short_title(second, unit, 26) if len(names) > 1 else "read from the latent",
        tools="",
    )
    kiel.x_range.flipped = kiel.y_range.flipped = first == "teff"  # pyright: ignore[reportAttributeAccessIssue]
    kiel.toolbar_location = None
    _stars(kiel, "x", "y", stars, place, mapper, 4)
    chart = _figure(height=600, min_border_left=0, tools="pan,wheel_zoom,box_zoom,reset,save", x_axis_label=" ")
    chart.yaxis.axis_label = " "  # explorer.js knows of which map
    _stars(chart, "mx", "my", stars, place, mapper, 6)
    bars = [_colour_bar(plot, mapper) for plot in (kiel, chart)]
    chart.add_tools(HoverTool(renderers=chart.renderers[:1], tooltips=_tooltips(payload)))
    options: Any = [(label["name"], label["symbol"]) for label in labels]
    choose = Select(options=options, value=names[0], title="coloured by", width=130, stylesheets=[WIDGETS])
    method = RadioButtonGroup(labels=["PCA", "t-SNE"], active=0, width=150, stylesheets=[WIDGETS])
    return {
        "stars": stars,
        "place": place,
        "kiel": kiel,
        "chart": chart,
        "map_across": chart.xaxis[0],
        "map_up": chart.yaxis[0],
        "kiel_bar": bars[0],
        "map_bar": bars[1],
        "mapper": mapper,
        "colour_by": choose,
        "method": method,
    }


def _stars(
    plot: Any, x: str, y: str, stars: ColumnDataSource, place: ColumnDataSource, mapper: LinearColorMapper, size: int
) -> None:
    """Stars in colour, hollow where a label that gives them their place was read, and a ring around the one that is
    shown.
    """
    colour = {"field": "value", "transform": mapper}
    placed_by_labels = x == "x"
    points = plot.scatter(
        x,
        y,
        source=stars,
        size=size,
        color=colour,
        fill_alpha="fill" if placed_by_labels else 0.75,
        line_alpha="line" if placed_by_labels else 0,
    )
    points.selection_glyph = points.nonselection_glyph = None
    plot.add_tools(TapTool(renderers=[points]))
    plot.scatter(x, y, source=place, size=16, fill_alpha=0, line_color=CHANGED, line_width=3)


def _colour_bar(plot: Any, mapper: LinearColorMapper) -> ColorBar:
    """The key of the colours, above a plot; explorer.js gives it its title."""
    bar = ColorBar(
        color_mapper=mapper,
        orientation="horizontal",
        height=7,
        padding=2,
        title=" ",
        title_text_font_size="12px",
        title_text_font_style="normal",
        title_text_color=INK,
        label_standoff=4,
        border_line_color=None,
        background_fill_color=None,
        major_tick_line_color=None,
    )
    plot.add_layout(bar, "above")
    return bar


def _tooltips(payload: dict[str, Any]) -> list[tuple[str, str]]:
    named = [("name", "@name")] if payload["stars"]["name"] else []
    return [("source_id", "@id"), *named, ("colour", "@told")]


def _widgets(payload: dict[str, Any]) -> dict[str, Any]:
    sliders = {
        f"slider_{i}": Slider(
            start=label["low"],
            end=label["high"],
            step=label["step"],
            value=(label["low"] + label["high"]) / 2,
            sizing_mode="stretch_width",
            title=label["title"],
            format=NumeralTickFormatter(format=_digits(label["step"])),
            bar_color=CHANGED,
            tooltips=False,
            stylesheets=[WIDGETS],
        )
        for i, label in enumerate(payload["labels"])
    }
    wanted = "source_id or name" if payload["stars"]["name"] else "source_id of a star"
    button = {"sizing_mode": "stretch_width", "stylesheets": [WIDGETS]}
    return sliders | {
        "search": TextInput(placeholder=f"{wanted}, then Enter", sizing_mode="stretch_width", stylesheets=[WIDGETS]),
        "other": Button(label="Another star", **button),
        "reset": Button(label="Undo my changes", **button),
        "save_csv": Button(label="Save spectra (CSV)", **button),
        "save_png": Button(label="Save plot (PNG)", **button),
    }


def _digits(step: float) -> str:
    """How a slider's value is written: as many digits behind the point as its step has."""
    behind = max(0, round(-math.log10(step)))
    return f"0.{'0' * behind}" if behind else "0"


def _compare(payload: dict[str, Any]) -> dict[str, Any]:
    """The same labels, decoded by both runs."""
    models: dict[str, Any] = {}
    x_range, y_range, y_difference = Range1d(start=0, end=1), Range1d(start=0, end=1.2), Range1d(start=-0.1, end=0.1)
    for i in range(2):
        source = ColumnDataSource({"x": [], "reconstructed": [], "changed": [], "difference": []})
        plot = _figure(
            height=280, x_range=x_range, y_range=y_range, y_axis_label="flux / continuum", tools="xbox_zoom,reset,save"
        )
        plot.line("x", "reconstructed", source=source, color=RECONSTRUCTED, width=1.6, legend_label="reconstructed")
        plot.line("x", "changed", source=source, color=CHANGED, width=1.6, legend_label="with your labels")
        _legend(plot)
        below = _difference(source, x_range, 150, y_range=y_difference)
        models |= {f"compare_{i}": source, f"compare_plot_{i}": plot, f"compare_difference_{i}": below}
        models[f"compare_legend_{i}"] = plot.legend[0]
    return models


def _figure(**options: Any) -> Any:
    plot = figure(
        sizing_mode="stretch_width",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **({"min_border_left": 68, "min_border_right": 12, "toolbar_location": "above"} | options),
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.grid.grid_line_color = GRID
    plot.axis.axis_line_color = AXIS
    plot.axis.major_tick_line_color = AXIS
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = plot.axis.axis_label_text_color = INK
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "12px"
    return plot


def _connect(document: Document, models: dict[str, Any]) -> None:
    """Tell explorer.js what the user did."""
    for name, model in models.items():
        if name.startswith("slider_"):
            model.js_on_change("value", CustomJS(code="Spectangle.labelsMoved()"))
        elif isinstance(model, Button):
            model.js_on_click(CustomJS(code=f"Spectangle.pressed({name!r})"))
    models["stars"].selected.js_on_change("indices", CustomJS(code="Spectangle.picked(cb_obj.indices)"))
    models["search"].js_on_change("value", CustomJS(code="Spectangle.search(cb_obj.value)"))
    models["answer"].js_on_change("data", CustomJS(code="Spectangle.answered(cb_obj.data)"))
    for name in ("colour_by", "method"):
        models[name].js_on_change("value" if name == "colour_by" else "active", CustomJS(code="Spectangle.drawMap()"))
    fit = CustomJS(code="Spectangle.fit()")
    models["spectrum"].js_on_change("inner_width", fit)
    models["spectrum"].x_range.js_on_change("start", fit)
    models["spectrum"].x_range.js_on_change("end", fit)
    drag = CustomJS(code="Spectangle.dragged(cb_obj)")
    for event in (PanStart, Pan, Tap, DoubleTap):
        models["latent"].js_on_event(event, drag)
    document.js_on_event("document_ready", CustomJS(args=models, code=f"Spectangle.start({{{', '.join(models)}}})"))
