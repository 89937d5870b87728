"""Figures of a cross-validation: every star as it was read when it was a test star.

Shapes: N stars of all folds, Z latent.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from spectangle.data.load import load_stars
from spectangle.evaluation.run_figures import ReadStars, labels_by_fate, read_test_stars
from spectangle.figures import diagram_axes, diagrams_figure, map_figure, plane, prediction_figure, save
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run

__all__ = ["draw_folds"]


def draw_folds(title: str, runs: Sequence[Run], folder: Path, survey: str | Path | None = None) -> list[Path]:
    """Draw one experiment's folds as PDF and PNG into ``folder``: labels read against the catalogue's, Kiel diagram,
    t-SNE of one fold.

    The first seed of each fold is drawn. Names begin with the title, so that no experiment replaces the figures of
    another. ``survey`` says where the survey file lies now, if it was moved.
    """
    first = {
        int(run.config["data"]["fold"]): run
        for run in sorted(runs, key=lambda run: int(run.config.get("seed", 0)), reverse=True)
    }
    begins = re.sub(r"\W+", "-", title).strip("-")
    written = []
    for name, figure in _figures(title, [first[fold] for fold in sorted(first)], survey):
        written += save(figure, folder / f"{begins}-{name}")
    return written


def _figures(title: str, runs: Sequence[Run], survey: str | Path | None) -> Iterator[tuple[str, Figure]]:
    loaded = [(run, load_autoencoder(run), load_stars(run, survey)) for run in runs]
    folds = [read_test_stars(run, model, data, len(data.test)) for run, model, data in loaded]
    catalogue, predicted, spectra = (_joined(folds, name) for name in ("catalogue", "predicted", "spectra_predicted"))
    stars = len(next(iter(catalogue.values())))
    words = f"{title}: each of {stars} stars as a test star\nerrors of all together (in the table: mean over folds)"
    yield "predicted", prediction_figure(predicted, catalogue, folds[0].units, words)
    if diagrams := len(diagram_axes(catalogue)):
        columns = {"from the spectra": [spectra] * diagrams} if spectra else {}
        yield (
            "kiel_chemical",
            diagrams_figure(catalogue, columns | {"from the latent": [predicted] * diagrams}, folds[0].units),
        )
    seen, (_, model, data) = folds[0], loaded[0]
    if len(seen.rows) >= 20 and seen.latent.shape[1] > 1:
        planes = {"spectra": plane(data.test.flux[seen.rows].numpy()), "latent": plane(seen.latent)}
        words = f"t-SNE of the {len(seen.rows)} test stars of fold {runs[0].config['data']['fold']}"
        yield "tsne", map_figure(planes, seen.catalogue, seen.units, labels_by_fate(model), words)


def _joined(folds: Sequence[ReadStars], which: str) -> dict[str, np.ndarray]:
    """Labels [N] of all folds by name; none if a fold has none."""
    parts = [getattr(fold, which) for fold in folds]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if all(parts) else {}
