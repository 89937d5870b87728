"""Spectra of the same stars with other labels: encode, change labels, decode (paper, Fig. 2), written as a survey.

Shapes: n stars, G points of the grid of labels, P pixels, K labels, Z latent.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.files import check_folder, refuse_existing, refuse_input
from spectangle.generation.figure import draw_generated
from spectangle.generation.label_changes import beyond, changed_labels, label_grid
from spectangle.generation.parents import Parents, parents_of
from spectangle.inference.load import load
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run, required
from spectangle.survey.writer import SurveyWriter

__all__ = ["generate"]

log = logging.getLogger(__name__)

CHUNK = 8192


def generate(
    run: str | None,
    out: str | None,
    set: Mapping[str, Any] | None = None,
    spectra: str | None = None,
    source_id: Sequence[int] | None = None,
    n_stars: int | None = 100,
    survey: str | None = None,
    figure: bool = True,
    overwrite: bool = False,
) -> Path:
    """Generate spectra with changed labels and write them as a survey file, with a picture of the first star.

    Arguments:
        run: Folder of a run or of an exported model.
        out: Survey file to write (.h5).
        set: Values by label: a number, a list, or ``start:stop:step``; several give all combinations.
        spectra: Stars to start from, as for spectangle predict; default: the test stars of the run.
        source_id: Only these stars.
        n_stars: The first so many of the stars; None = all. Those that ``source_id`` names are all taken.
        survey: Where the run's survey lies now, if it was moved.
        figure: Whether ``<out>.png`` is drawn.
        overwrite: Whether an existing survey is replaced.

    Raises:
        SpectangleError: Bad input; nothing is written.
    """
    run, path, n_stars = required(run), _check_output(out, overwrite), _whole(n_stars)
    model = load(run, survey)
    grid = label_grid(set or {}, model.labels, model.network.targets[len(model.labels) :])
    refuse_input(path, [spectra or survey or Run(run).survey_path])
    parents = parents_of(model, run, spectra, survey, source_id, n_stars, distinct=len(grid) == 1)
    changed = changed_labels(parents.labels, model.labels, grid)
    _warn(model, changed, grid)
    _write(
        path,
        model,
        parents,
        changed,
        " ".join(f"{name}={value}" for name, value in (set or {}).items() if value is not None),
    )
    log.info(
        "%s: %d spectra (%d stars x %d sets of labels)",
        path,
        changed.shape[0] * changed.shape[1],
        len(parents),
        len(grid),
    )
    if figure:
        log.info("%s", draw_generated(model, parents, changed[0], path.with_suffix(".png")))
    return path


def _check_output(out: str | None, overwrite: bool) -> Path:
    if out is None or Path(out).suffix.lower() not in (".h5", ".hdf5"):
        raise SpectangleError(
            f"out is {out or 'empty'}; generated spectra are written as a survey file: out=generated.h5."
        )
    refuse_existing(Path(out), overwrite)
    check_folder(Path(out))
    return Path(out)


def _whole(n_stars: Any) -> int | None:
    if n_stars is None:
        return None
    if isinstance(n_stars, bool) or not isinstance(n_stars, (int, float)) or n_stars != n_stars // 1 or n_stars < 1:
        raise SpectangleError(
            f"n_stars={n_stars}: how many stars to take, a whole number of at least 1, was expected; null takes all."
        )
    return int(n_stars)


def _warn(model: TrainedModel, changed: np.ndarray, grid: Sequence[Mapping[str, float]]) -> None:
    """Say where the labels asked for lie beyond the training stars, and which ones the decoder hardly listens to."""
    if model.calibration is not None:
        for sentence in beyond(changed, grid, model.labels, model.units, model.calibration):
            log.warning("beyond the training stars: %s", sentence)
    if not any(grid):
        log.info("nothing is set: the spectra are those of the stars themselves, as the run reconstructs them")
    if entangled := [name for name in grid[0] if model.lambdas[name] <= 0]:
        log.warning(
            "%s: this run left the label in the latent, so the spectra follow only part of the change; set labels "
            "that it disentangled.",
            ", ".join(entangled),
        )


def _write(out: Path, model: TrainedModel, parents: Parents, changed: np.ndarray, asked: str) -> None:
    """Write n * G spectra, star by star; one set of labels keeps the stars' own source_id."""
    n, g, k = changed.shape
    labels = changed.reshape(-1, k)
    parent = np.repeat(np.arange(n), g)
    ids = parents.source_id if g == 1 else np.arange(1, n * g + 1)
    origin = (
        f"generated by run {model.identity['run']} from survey {model.identity['survey'][:12]}; the spectra are "
        "noise-free"
    )
    with SurveyWriter(out, model.wavelength, model.units, origin=origin, release=asked or "reconstructions") as writer:
        for start in range(0, len(parent), CHUNK):
            rows = slice(start, start + CHUNK)
            one = parent[rows]
            columns = {"parent_source_id": parents.source_id[one]}
            columns |= {f"original_{name}": parents.labels[one, i] for i, name in enumerate(model.labels)}
            if model.calibration is not None:
                columns["label_distance"] = model.calibration.label_distance(labels[rows])
            flux = model.decode(parents.latent[one], labels[rows])
            writer.append(ids[rows], flux, dict(zip(model.labels, labels[rows].T, strict=True)), columns=columns)
