"""Spectra of the same stars with other labels: encode, change labels, decode (paper, Fig. 2), written as a survey.

Shapes: n stars, G points of the grid of labels, P pixels, K labels, Z latent.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectangle.errors import SpectangleError
from spectangle.generation.label_changes import beyond, changed_labels, label_grid
from spectangle.outputs import refuse_existing
from spectangle.prediction.reading import read_spectra
from spectangle.prediction.spectra_input import open_spectra
from spectangle.runs import Run, required
from spectangle.survey import SurveyWriter
from spectangle.trained import TrainedModel, load

__all__ = ["Parents", "generate", "parents_of"]

log = logging.getLogger(__name__)

CHUNK = 8192


@dataclass(frozen=True)
class Parents:
    """Stars whose spectra are changed: source_id [n], flux [n, P], labels [n, K], latent [n, Z]."""

    source_id: np.ndarray
    flux: np.ndarray
    labels: np.ndarray
    latent: np.ndarray

    def __len__(self) -> int:
        return len(self.source_id)


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
        spectra: Stars to start from, as for predict.py; default: the test stars of the run.
        source_id: Only these stars.
        n_stars: The first so many of them; None = all.
        survey: Where the run's survey lies now, if it was moved.
        figure: Whether ``<out>.png`` is drawn.
        overwrite: Whether an existing survey is replaced.

    Raises:
        SpectangleError: Bad input; nothing is written.
    """
    run, path, n_stars = required(run), _check_output(out, overwrite), _whole(n_stars)
    model = load(run, survey)
    grid = label_grid(set or {}, model.labels)
    parents = parents_of(model, run, spectra, survey, source_id, n_stars)
    changed = changed_labels(parents.labels, model.labels, grid)
    _warn(model, changed, grid)
    _write(path, model, parents, changed, " ".join(f"{name}={value}" for name, value in (set or {}).items() if value is not None))
    log.info("%s: %d spectra (%d stars x %d sets of labels)", path, changed.shape[0] * changed.shape[1], len(parents), len(grid))
    if figure:
        from spectangle.generation.figure import draw_generated

        log.info("%s", draw_generated(model, parents, changed[0], path.with_suffix(".png")))
    return path


def _check_output(out: str | None, overwrite: bool) -> Path:
    if out is None or Path(out).suffix.lower() not in (".h5", ".hdf5"):
        raise SpectangleError(f"out is {out or 'empty'}; generated spectra are written as a survey file: out=generated.h5.")
    refuse_existing(Path(out), overwrite)
    return Path(out)


def _whole(n_stars: Any) -> int | None:
    if n_stars is None:
        return None
    if isinstance(n_stars, bool) or not isinstance(n_stars, (int, float)) or n_stars != n_stars // 1 or n_stars < 1:
        raise SpectangleError(f"n_stars={n_stars}: how many stars to take, a whole number of at least 1, was expected; null takes all.")
    return int(n_stars)


def _warn(model: TrainedModel, changed: np.ndarray, grid: Sequence[Mapping[str, float]]) -> None:
    """Say where the labels asked for lie beyond the training stars, and which ones the decoder hardly listens to."""
    if model.calibration is not None:
        for sentence in beyond(changed, grid, model.labels, model.units, model.calibration):
            log.warning("beyond the training stars: %s", sentence)
    if kept := [name for name in grid[0] if model.lambdas[name] <= 0]:
        log.warning(
            "%s: this run left the label in the latent, so the spectra follow only part of the change; set labels that it disentangled.",
            ", ".join(kept),
        )


def parents_of(
    model: TrainedModel, run: str, spectra: str | None, survey: str | None = None, source_id: Sequence[int] | None = None, n_stars: int | None = None
) -> Parents:
    """Read the stars to start from, each with the latent that belongs to its source_id; labels that their catalogue lacks are read from
    the spectra.

    Raises:
        SpectangleError: A source_id is not among them.
    """
    if spectra is None:
        test = Run(run).data(survey).test
        ids, flux, labels = test.source_id, test.flux.numpy(), test.labels.numpy()
    else:
        ids, flux, labels = _read(model, spectra)
    if source_id:
        if missing := [one for one in source_id if one not in ids]:
            raise SpectangleError(f"source_id {missing[0]} is not among the {len(ids)} stars; they run from {ids.min()} to {ids.max()}.")
        rows = np.array([np.flatnonzero(ids == one)[0] for one in source_id])
    else:
        rows = np.arange(len(ids))[:n_stars]
    rows = rows[_usable(flux[rows], ids[rows])]
    ids, flux, labels = ids[rows], flux[rows], labels[rows]
    if not model.network.conditional_encoder:
        reading = read_spectra([model], flux, None, ids)
        labels = np.where(np.isfinite(labels), labels, reading.labels)
        return Parents(ids, flux, labels, reading.latent)
    if not np.isfinite(labels).all():
        raise SpectangleError(
            "This run has conditioning=synthetic: it needs the labels of every star that it encodes. Give a survey with all labels."
        )
    filled = np.where(np.isfinite(flux), flux, model.fill.numpy()).astype(np.float32)
    return Parents(ids, flux, labels, model.network.embed(torch.from_numpy(filled), torch.from_numpy(labels), ids))


def _usable(flux: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which stars [n] have a pixel to start from; the others are named."""
    usable = np.asarray(np.isfinite(flux).any(axis=1))
    if not usable.any():
        raise SpectangleError(f"Every pixel of the {len(flux)} spectra is masked (NaN), so there is nothing to change; check the file.")
    if not usable.all():
        log.warning("%d star(s) have no usable pixel and are left out, the first is %d.", (~usable).sum(), ids[~usable][0])
    return usable


def _read(model: TrainedModel, spectra: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids, flux, labels = [], [], []
    for chunk in open_spectra(spectra, model.wavelength).chunks:
        ids.append(chunk.source_id)
        flux.append(chunk.flux)
        unknown = np.full(len(chunk), np.nan, np.float32)
        labels.append(np.column_stack([(chunk.labels or {}).get(name, unknown) for name in model.labels]))
    return np.concatenate(ids), np.concatenate(flux), np.concatenate(labels)


def _write(out: Path, model: TrainedModel, parents: Parents, changed: np.ndarray, asked: str) -> None:
    """Write n * G spectra, star by star; one set of labels keeps the stars' own source_id."""
    n, g, k = changed.shape
    labels = changed.reshape(-1, k)
    parent = np.repeat(np.arange(n), g)
    ids = parents.source_id if g == 1 else np.arange(1, n * g + 1)
    origin = f"generated by run {model.identity['run']} from survey {model.identity['survey'][:12]}; the spectra are noise-free"
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
