"""The W&B dashboard as code: which panels a project shows, and of which metrics. Created, or brought up to date, by
`spectangle dashboard`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectangle.errors import SpectangleError
from spectangle.files import write_beside
from spectangle.tracking.connection import check_server

__all__ = ["Panel", "build", "layout", "publish"]

RECONSTRUCTION = "best/val/reconstruction"
TUNED = ("pair", "model.latent", "adversary.discriminator_steps", "bins.count")
VIEW = "nw-spectangle-v"  # W&B's name of the view: a second call updates it


@dataclass
class Panel:
    """One panel: its kind, title, the metrics it shows, and for some kinds the config keys beside them."""

    kind: str
    title: str
    metrics: list[str]
    config: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def layout(labels: Sequence[str]) -> dict[str, list[Panel]]:
    """Sections and their panels, for the labels of a survey."""
    return {
        "Adversarial training": _training(labels),
        "What the latent knows": _leakage(labels),
        "Downstream": _downstream(labels),
        "Sweep": _sweep(labels),
    }


def _training(labels: Sequence[str]) -> list[Panel]:
    title = "Reconstruction: mean squared error of the flux"
    panels = [
        Panel("line", title, ["train/reconstruction", "val/reconstruction"], options={"log_y": True}),
        Panel("line", "Loss of eq. 4", ["train/loss"]),
    ]
    for label in labels:
        gains = [f"{stage}/discriminator_gain/{label}" for stage in ("train", "val")]
        panels.append(Panel("line", f"{label}: nats that the discriminator gains (0 = at chance)", gains))
    return panels


def _leakage(labels: Sequence[str]) -> list[Panel]:
    title = "Disentanglement: 1 = nothing left, against the raw spectra"
    return [
        Panel("bar", "R2 of the probes, test stars", [f"probe/{label}/r2" for label in labels]),
        Panel("bar", title, [f"disentanglement/{label}" for label in labels]),
        Panel("media", "Probes, floor and excess", ["tables/probes"]),
    ]


def _downstream(labels: Sequence[str]) -> list[Panel]:
    panels = []
    for label in labels:
        metrics = [f"test/{source}/{label}/mae" for source in ("spectra", "latent")]
        panels.append(Panel("bar", f"{label}: MAE from the spectra and from the latent", metrics))
    return [*panels, Panel("media", "MAE, mean and sigma", ["tables/downstream"])]


def _sweep(labels: Sequence[str]) -> list[Panel]:
    # configurations are compared on validation stars; the probes' need callbacks.probes.every_n_epochs
    results = [RECONSTRUCTION, *(_validated(label) for label in labels)]
    choices = [*TUNED, *(f"lambdas.{label}" for label in labels)]
    panels = [Panel("parallel", "Choices and results", results, choices)]
    panels += [Panel("importance", "", [name]) for name in results]
    for one, other in _pairs(labels):
        title = f"What is left of {one} against {other}, validation stars"
        panels.append(Panel("scatter", title, [_validated(one), _validated(other)]))
    return panels


def publish(
    entity: str, project: str, name: str, labels: Sequence[str], save: str | None = None, **filters: str | None
) -> str:
    """Create or update the dashboard and return its address; with ``save`` write the same specification to a file
    instead.

    Arguments:
        entity, project: Where the runs are.
        name: Title of the dashboard.
        labels: Labels of the survey.
        save: A JSON file.
        filters: ``pair`` and ``survey``: show only the runs of one pair or one survey.

    Raises:
        SpectangleError: wandb-workspaces is missing, or W&B did not take the dashboard.
    """
    if not entity or not project:
        raise SpectangleError(
            "entity and project say where the runs are: spectangle dashboard entity=me project=spectangle."
        )
    workspace = build(entity, project, name, labels, {key: value for key, value in filters.items() if value})
    if save:
        # wandb-workspaces writes to the server only; this is the specification that it would send
        write_beside(
            Path(save),
            json.dumps(workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"), indent=2)
            + "\n",
        )
        return save
    check_server("or write the dashboard to a file: save=workspace.json")
    try:
        workspace.save()
    except Exception as error:  # of several libraries
        raise SpectangleError(
            f"W&B did not take the dashboard ({error}); save=workspace.json writes it to a file."
        ) from error
    return workspace.url


def build(entity: str, project: str, name: str, labels: Sequence[str], filters: dict[str, str]) -> Any:
    """The dashboard as wandb-workspaces has it."""
    try:
        import wandb_workspaces.expr as expr
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise SpectangleError(
            "spectangle dashboard needs wandb-workspaces: pip install 'spectangle[dashboards]'."
        ) from error
    sections = [
        workspaces.Section(name=title, panels=[_panel(panel) for panel in panels], is_open=True, pinned=True)
        for title, panels in layout(labels).items()
    ]
    runs = workspaces.RunsetSettings(
        filters=[expr.Config(key) == value for key, value in filters.items()],
        pinned_columns=[
            "run:displayName",
            "run:tags",
            f"summary:{RECONSTRUCTION}",
            *(f"summary:{_validated(label)}" for label in labels),
        ],
    )
    settings = workspaces.WorkspaceSettings(x_axis="epoch")
    view = workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        runset_settings=runs,
        settings=settings,
        auto_generate_panels=False,
    )
    view._internal_name = VIEW  # the library names each view at random: the same name brings the same one up to date
    return view


def _validated(label: str) -> str:
    return f"best/val/probe/{label}/r2"


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2.interface as reports

    title, metrics = panel.title, panel.metrics
    if panel.kind == "line":
        return reports.LinePlot(title=title, x="epoch", y=list(metrics), **panel.options)
    if panel.kind == "bar":
        return reports.BarPlot(title=title, metrics=list(metrics), orientation="v")
    if panel.kind == "media":
        return reports.MediaBrowser(title=title, media_keys=metrics)
    if panel.kind == "importance":
        return reports.ParameterImportancePlot(with_respect_to=metrics[0])
    if panel.kind == "scatter":
        x, y = (reports.SummaryMetric(name) for name in metrics)
        return reports.ScatterPlot(title=title, x=x, y=y)
    axes = [*(reports.Config(key) for key in panel.config), *(reports.SummaryMetric(name) for name in metrics)]
    return reports.ParallelCoordinatesPlot(
        title=title, columns=[reports.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
    )


def _pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Each label with the one that is half of them further on: with the paper's four, what is lost against what is
    kept.
    """
    half = max(1, len(labels) // 2)
    others = [*labels[half:], *labels[:half]]
    return [(label, other) for label, other in zip(labels, others, strict=True) if label != other]
