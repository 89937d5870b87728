"""The stars whose spectra are changed: read, with the latent that belongs to each.

Shapes: n stars, P pixels, K labels, Z latent.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.inference.read import read_spectra
from spectangle.inference.spectra_input import open_spectra
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run

__all__ = ["Parents", "parents_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parents:
    """Stars whose spectra are changed: source_id [n], flux [n, P], labels [n, K], latent [n, Z]."""

    source_id: np.ndarray
    flux: np.ndarray
    labels: np.ndarray
    latent: np.ndarray

    def __len__(self) -> int:
        return len(self.source_id)


def parents_of(
    model: TrainedModel,
    run: str,
    spectra: str | None,
    survey: str | None = None,
    source_id: Sequence[int] | None = None,
    n_stars: int | None = None,
    distinct: bool = False,
) -> Parents:
    """Read the stars to start from, each with the latent that belongs to its source_id; labels that their catalogue
    lacks are read from the spectra. Test stars that lack labels are left out where the encoder needs these.

    Arguments:
        model, run: The model, and the folder that it comes from.
        spectra: As for spectangle predict, read no further than is needed; None: the test stars of the run.
        survey: Where the run's survey lies now, if it was moved.
        source_id: Only these stars.
        n_stars: Without source_id, the first so many; None = all.
        distinct: Whether a source_id that comes twice is refused.

    Raises:
        SpectangleError: The decoder is told no labels, a source_id is not among the stars or comes twice, or stars lack
            labels that the encoder needs.
    """
    model.check_told()
    if spectra is None:
        test = load_stars(Run(run), survey).test
        if model.network.conditional_encoder and not source_id:
            test = test[_labelled(test.labels.numpy())]
        ids, flux, labels = test.source_id, test.flux.numpy(), test.labels.numpy()
        rows = _chosen(ids, source_id, n_stars)
    else:
        ids, flux, labels = _read(model, spectra, source_id, n_stars)
        rows = np.arange(len(ids))
    if distinct:
        _refuse_twice(ids[rows])
    rows = rows[_usable(flux[rows], ids[rows])]
    ids, flux, labels = ids[rows], flux[rows], labels[rows]
    if not model.network.conditional_encoder:
        reading = read_spectra([model], flux, None, ids)
        labels = np.where(np.isfinite(labels), labels, reading.labels)
        return Parents(ids, flux, labels, reading.latent)
    if not np.isfinite(labels).all():
        raise SpectangleError(
            "This run has model.conditioning=synthetic: it needs the labels of every star that it encodes. Give a "
            "survey with all labels."
        )
    filled = np.where(np.isfinite(flux), flux, model.fill.numpy()).astype(np.float32)
    return Parents(ids, flux, labels, model.network.embed(torch.from_numpy(filled), torch.from_numpy(labels), ids))


def _labelled(labels: np.ndarray) -> np.ndarray:
    """Which stars [n] have all labels [n, K]; says how many do not."""
    complete = np.flatnonzero(np.isfinite(labels).all(axis=1))
    if not len(complete):
        raise SpectangleError(
            f"None of the run's {len(labels)} test stars has all labels, which its encoder needs "
            "(model.conditioning=synthetic). Give stars that have them: spectra=survey.h5."
        )
    if len(complete) < len(labels):
        log.warning(
            "%d of %d test stars lack labels that the encoder needs (model.conditioning=synthetic) and are left out.",
            len(labels) - len(complete),
            len(labels),
        )
    return complete


def _usable(flux: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which stars [n] have a pixel to start from; the others are named."""
    usable = np.asarray(np.isfinite(flux).any(axis=1))
    if not usable.any():
        raise SpectangleError(
            f"Every pixel of the {len(flux)} spectra is masked (NaN), so there is nothing to change; check the file."
        )
    if not usable.all():
        log.warning(
            "%d star(s) have no usable pixel and are left out, the first is %d.", (~usable).sum(), ids[~usable][0]
        )
    return usable


def _read(
    model: TrainedModel, spectra: str, source_id: Sequence[int] | None, n_stars: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """source_id [n], flux [n, P] and labels [n, K] of the stars asked for; reading ends with the last of them."""
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    all_ids, n_kept, missing = [], 0, set(source_id or ())
    for chunk in open_spectra(spectra, model.wavelength).chunks:
        all_ids.append(chunk.source_id)
        if source_id:
            rows = np.flatnonzero(np.isin(chunk.source_id, source_id))
        else:
            rows = np.arange(len(chunk))[: None if n_stars is None else n_stars - n_kept]
        unknown = np.full(len(chunk), np.nan, np.float32)
        labels = np.column_stack([(chunk.labels or {}).get(name, unknown) for name in model.labels])
        kept.append((chunk.source_id[rows], chunk.flux[rows], labels[rows]))
        n_kept += len(rows)
        missing -= set(chunk.source_id[rows].tolist())
        if not missing if source_id else n_kept == n_stars:
            break
    if not all_ids:
        raise SpectangleError(f"{spectra}: the input holds no spectrum.")
    ids, flux, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    if missing:
        _refuse_missing(np.concatenate(all_ids), source_id or ())
    rows = _chosen(ids, source_id, n_stars)
    return ids[rows], flux[rows], labels[rows]


def _chosen(ids: np.ndarray, source_id: Sequence[int] | None, n_stars: int | None) -> np.ndarray:
    """Rows of the stars asked for, among ids [n]."""
    if not source_id:
        return np.arange(len(ids))[:n_stars]
    _refuse_missing(ids, source_id)
    return np.array([np.flatnonzero(ids == one)[0] for one in source_id])


def _refuse_missing(ids: np.ndarray, source_id: Sequence[int]) -> None:
    if missing := sorted(set(source_id) - set(ids.tolist()), key=list(source_id).index):
        raise SpectangleError(
            f"source_id {missing[0]} is not among the {len(ids)} stars; they run from {ids.min()} to {ids.max()}."
        )


def _refuse_twice(ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SpectangleError(f"source_id {values[counts > 1][0]} comes more than once; keep one row per star.")
