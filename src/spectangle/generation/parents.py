"""The stars whose spectra are changed: read, with the latent that belongs to each.

Shapes: n stars, P pixels, K labels, Z latent.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import torch

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.inference.read import read_spectra
from spectangle.inference.spectra_input import open_spectra
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run

__all__ = ["Parents", "parent_blocks", "together"]

log = logging.getLogger(__name__)

# Whole batches of all that encodes and decodes them: stars give the same to the last digit in blocks as together.
BLOCK = 8192

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # source_id [n], flux [n, P] and labels [n, K]


@dataclass(frozen=True)
class Parents:
    """Stars whose spectra are changed: source_id [n], flux [n, P], labels [n, K], latent [n, Z]."""

    source_id: np.ndarray
    flux: np.ndarray
    labels: np.ndarray
    latent: np.ndarray

    def __len__(self) -> int:
        return len(self.source_id)


def together(blocks: Iterable[Parents]) -> Parents:
    """All stars of :func:`parent_blocks` at once."""
    every = list(blocks)
    return Parents(*(np.concatenate([getattr(block, field.name) for block in every]) for field in fields(Parents)))


def parent_blocks(
    model: TrainedModel,
    run: str,
    spectra: str | None,
    survey: str | None = None,
    source_id: Sequence[int] | None = None,
    n_stars: int | None = None,
    distinct: bool = False,
) -> Iterator[Parents]:
    """Read the stars to start from, 8,192 at a time, each with the latent that belongs to its source_id; labels that
    their catalogue lacks are read from the spectra. Test stars that lack labels are left out where the encoder needs
    these.

    Arguments:
        model, run: The model, and the folder that it comes from.
        spectra: As for spectangle predict, read no further than is needed; None: the test stars of the run.
        survey: Where the run's survey lies now, if it was moved.
        source_id: Only these stars.
        n_stars: Without source_id, the first so many; None = all.
        distinct: Whether a source_id that comes twice is refused.

    Raises:
        SpectangleError: The decoder is told no labels, a source_id is not among the stars or comes twice, stars lack
            labels that the encoder needs, or no star has a usable pixel.
    """
    model.check_told()
    stars = (
        _test_stars(model, run, survey, source_id, n_stars)
        if spectra is None
        else _read(model, spectra, source_id, n_stars)
    )
    for ids, flux, labels in _in_blocks(_usable(_distinct(stars) if distinct else stars)):
        yield _encoded(model, ids, flux, labels)


def _encoded(model: TrainedModel, ids: np.ndarray, flux: np.ndarray, labels: np.ndarray) -> Parents:
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


def _test_stars(
    model: TrainedModel, run: str, survey: str | None, source_id: Sequence[int] | None, n_stars: int | None
) -> Iterator[Arrays]:
    test = load_stars(Run(run), survey).test
    if model.network.conditional_encoder and not source_id:
        test = test[_labelled(test.labels.numpy())]
    ids, flux, labels = test.source_id, test.flux.numpy(), test.labels.numpy()
    rows = _chosen(ids, source_id, n_stars)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        yield ids[part], flux[part], labels[part]


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


def _distinct(stars: Iterable[Arrays]) -> Iterator[Arrays]:
    """The same stars; refuses a source_id that came before."""
    known = np.zeros(0, dtype=np.int64)
    for ids, flux, labels in stars:
        known = np.sort(np.concatenate([known, ids]), kind="stable")
        if (twice := known[1:] == known[:-1]).any():
            raise SpectangleError(f"source_id {known[1:][twice][0]} comes more than once; keep one row per star.")
        yield ids, flux, labels


def _usable(stars: Iterable[Arrays]) -> Iterator[Arrays]:
    """The stars that have a pixel to start from; the others are named."""
    n_stars, blank = 0, []
    for ids, flux, labels in stars:
        usable = np.asarray(np.isfinite(flux).any(axis=1))
        n_stars += len(ids)
        blank += ids[~usable].tolist()
        yield ids[usable], flux[usable], labels[usable]
    if len(blank) == n_stars:
        raise SpectangleError(
            f"Every pixel of the {n_stars} spectra is masked (NaN), so there is nothing to change; check the file."
        )
    if blank:
        log.warning("%d star(s) have no usable pixel and are left out, the first is %d.", len(blank), blank[0])


def _in_blocks(stars: Iterable[Arrays]) -> Iterator[Arrays]:
    """The same stars, BLOCK at a time and the rest."""
    waiting: list[Arrays] = []
    for part in stars:
        waiting.append(part)
        while sum(len(ids) for ids, *_ in waiting) >= BLOCK:
            ids, flux, labels = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            yield ids[:BLOCK], flux[:BLOCK], labels[:BLOCK]
            waiting = [(ids[BLOCK:], flux[BLOCK:], labels[BLOCK:])]
    if any(len(ids) for ids, *_ in waiting):
        ids, flux, labels = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        yield ids, flux, labels


def _read(model: TrainedModel, spectra: str, source_id: Sequence[int] | None, n_stars: int | None) -> Iterator[Arrays]:
    """The stars asked for, as they are read, or all together in the order in which they are named; reading ends with
    the last of them.
    """
    named: list[Arrays] = []
    all_ids, n_kept, missing = [], 0, set(source_id or ())
    for chunk in open_spectra(spectra, model.wavelength).chunks:
        all_ids.append(chunk.source_id)
        if source_id:
            rows = np.flatnonzero(np.isin(chunk.source_id, source_id))
        else:
            rows = np.arange(len(chunk))[: None if n_stars is None else n_stars - n_kept]
        unknown = np.full(len(chunk), np.nan, np.float32)
        labels = np.column_stack([(chunk.labels or {}).get(name, unknown) for name in model.labels])
        kept = chunk.source_id[rows], chunk.flux[rows], labels[rows]
        if source_id:
            named.append(kept)
        else:
            yield kept
        n_kept += len(rows)
        missing -= set(chunk.source_id[rows].tolist())
        if not missing if source_id else n_kept == n_stars:
            break
    if not all_ids:
        raise SpectangleError(f"{spectra}: the input holds no spectrum.")
    if missing:
        _refuse_missing(np.concatenate(all_ids), source_id or ())
    if source_id:
        ids, flux, labels = (np.concatenate(parts) for parts in zip(*named, strict=True))
        rows = _chosen(ids, source_id, n_stars)
        yield ids[rows], flux[rows], labels[rows]


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
