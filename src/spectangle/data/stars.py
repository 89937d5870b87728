"""Stars in memory: what is known of each, the role that each plays, and batches of them.

Shapes: N stars, P pixels, K labels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.survey.star_draws import star_uniform

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Batches",
    "Stars",
    "fill_masked",
    "flux_noise",
    "class_codes",
    "class_word",
    "epoch_seed",
    "label_errors",
    "label_weights",
    "roles",
    "star_order",
    "true_labels",
]

TRAIN, VALIDATION, TEST = 0, 1, 2
MOST_CLASSES = 50  # of an attribute


@dataclass
class Stars:
    """Some stars in memory.

    Row in the survey [N], source_id [N], flux [N, P], its noise [N], labels [N, K] as the catalogue has them (NaN where
    it has none), their errors [N, K] (NaN where it has none), the true labels [N, K] (NaN where nobody knows them),
    codes of the classes of attributes [N, A] (NaN where there is none), the weight of each star's label or attribute
    among those of the other stars [N, K + A], classes that discriminators are asked for [N, K + A] (-1: none).
    """

    rows: np.ndarray
    source_id: np.ndarray
    flux: Tensor
    noise: Tensor
    labels: Tensor
    label_errors: np.ndarray
    true_labels: np.ndarray
    attributes: Tensor
    weights: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> "Stars":
        """Some of the stars."""
        return Stars(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def targets(self) -> Tensor:
        """Labels and codes of attributes [N, K + A]: what the adversary and the decoder know of a star."""
        return torch.cat([self.labels, self.attributes], dim=1)


class Batches:
    """Index whole batches out of tensors; a DataLoader would collect them star by star.

    All batches have the same size, or one star more: what a few left-over stars would make of the running means of
    batch normalisation, every evaluation would be told.

    Arguments:
        tensors: Any number of tensors with N rows.
        batch_size: Stars per batch at most (3 where it is 2 and their number is odd).
        order: None for the stars' own order, or a function that returns a permutation [N] for each pass.

    While nobody reads the batches (``read`` is False), each has as many stars as it should, but always the first ones,
    which takes no time.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, order: Callable[[], Tensor] | None = None):
        self.tensors, self.batch_size, self.order = tensors, batch_size, order
        self.read = True

    def __len__(self) -> int:
        n = len(self.tensors[0])
        return max(1, min(-(-n // self.batch_size), n // 2))  # batch normalisation cannot train on one star

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rows = torch.arange(len(self.tensors[0])) if self.order is None else self.order()
        for part in rows.to(self.tensors[0].device).tensor_split(len(self)):
            yield tuple(tensor[part] if self.read else tensor[: len(part)] for tensor in self.tensors)


def star_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order [n] in which an epoch takes n training stars: by seed and epoch alone, so that a resumed run repeats
    the uninterrupted one.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of the random numbers of an epoch."""
    return seed * 1_000_003 + epoch


def roles(
    source_id: np.ndarray,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    folds: int | None = None,
    fold: int = 0,
) -> np.ndarray:
    """Role of each star [N]: 0 training, 1 validation, 2 test, by a hash of (seed, source_id) alone.

    No other star matters, nor does the order of the file: what is a test star in a subset of a survey is one in the
    whole, and a cut star leaves the others as they are. The fractions are met as a random draw meets them.
    """
    place, second = star_uniform(source_id, seed, stream=0), star_uniform(source_id, seed, stream=1)
    at_least_two = max(test_fraction, np.partition(place, 2)[2])
    test = place < at_least_two if folds is None else np.floor(place * folds) == fold
    rest = np.where(test, np.inf, second)
    validation = rest < max(validation_fraction, np.partition(rest, 2)[2])
    return np.where(test, TEST, np.where(validation, VALIDATION, TRAIN))


def label_errors(survey: Survey, labels: Sequence[str]) -> np.ndarray:
    """One-sigma catalogue errors [N, K]; NaN where the survey has none."""
    errors = [survey.label_error(name) for name in labels]
    return np.stack([np.full(len(survey), np.nan, np.float32) if error is None else error for error in errors], axis=1)


def label_weights(errors: np.ndarray, kind: str = "none") -> np.ndarray:
    r"""Weight of each star's label among those of the other stars [N, K], 1 on average.

    ``errors``: :math:`1 / (\tilde\sigma^2 + \sigma_i^2)` with the median error :math:`\tilde\sigma` of the label: none
    counts more than twice what a usual one does, one with five times the error a thirteenth. A star without error, or
    with one of 0, has the usual one; a label without any weighs all stars alike.

    Arguments:
        errors: One sigma [N, K], NaN where there is none.
        kind: ``none`` (all alike) or ``errors``.
    """
    if kind not in ("none", "errors"):
        raise SpectangleError(f"labels.weight is '{kind}'; it must be none or errors.")
    weights = np.ones_like(errors, dtype=np.float32)
    for k, column in enumerate(errors.T if kind == "errors" else ()):
        known = np.isfinite(column) & (column > 0)
        if known.any():
            usual = np.median(column[known])
            weights[:, k] = 1 / (usual**2 + np.where(known, column, usual) ** 2)
            weights[:, k] /= weights[:, k].mean()
    return weights


def true_labels(survey: Survey, labels: Sequence[str]) -> np.ndarray:
    """True labels [N, K], which synthetic surveys keep in the columns ``true_<label>``; NaN where nobody knows them."""
    known = [f"true_{name}" for name in labels]
    columns = [survey.column(name) if name in survey.columns else np.full(len(survey), np.nan) for name in known]
    return np.stack(columns, axis=1).astype(np.float32)


def class_codes(survey: Survey, names: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Codes 0, 1, ... of the classes of some columns of a survey [N, A] float32 (NaN: empty, or of no star of some
    ``rows``), and the classes in that order.

    Raises:
        SpectangleError: A column has numbers that are no classes, one class only, or more than 50.
    """
    codes, classes = np.full((len(survey), len(names)), np.nan, np.float32), {}
    for a, name in enumerate(names):
        column = survey.column(name)
        if column.dtype.kind == "f" and not (column[np.isfinite(column)] % 1 == 0).all():
            raise SpectangleError(
                f"labels.attributes names {name}, whose values are numbers such as {column[0]:g}; an attribute has "
                "classes. Use it as a label, or write its classes in a column of their own."
            )
        words = np.array([class_word(value) for value in column.tolist()])
        known = words != ""
        found = sorted(set(words[rows][known[rows]].tolist()))
        if not 2 <= len(found) <= MOST_CLASSES:
            raise SpectangleError(
                f"labels.attributes names {name}, which has {len(found)} classes among the stars that are used; an "
                f"attribute needs 2 to {MOST_CLASSES}."
            )
        for code, word in enumerate(found):
            codes[words == word, a] = code
        classes[name] = found
    return codes, classes


def class_word(value: Any) -> str:
    """The name of a class; empty where there is none."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return str(int(value)) if np.isfinite(value) else ""
    return str(value)


def fill_masked(flux: np.ndarray, train: np.ndarray) -> None:
    """Fill masked pixels of flux [N, P] with the mean of the pixel over training stars, in place."""
    total, count = np.zeros(flux.shape[1]), np.zeros(flux.shape[1])
    for rows in np.array_split(np.sort(train), max(1, len(train) // 4096)):
        finite = np.isfinite(flux[rows])
        total += np.where(finite, flux[rows], 0.0).sum(0, dtype=np.float64)
        count += finite.sum(0)
    if (empty := count == 0).any():
        raise SpectangleError(
            f"{empty.sum()} of {len(empty)} pixels are masked in every training star; cut them from the survey."
        )
    mean = (total / count).astype(np.float32)
    for start in range(0, len(flux), 4096):
        part = flux[start : start + 4096]
        np.copyto(part, mean, where=~np.isfinite(part))


def flux_noise(flux: np.ndarray, flux_error: np.ndarray | None) -> np.ndarray:
    r"""Noise of a pixel of each spectrum [N]: the median flux error; where there is none, what the spectrum itself
    shows.

    That is DER_SNR (Stoehr et al. 2008, ASPC 394, 505), :math:`1.482602 / \sqrt 6 \; \mathrm{median} |2 f_i - f_{i-2} -
    f_{i+2}|`: right where the flux changes slowly over five pixels, too large where lines are narrow.

    Arguments:
        flux: [N, P].
        flux_error: [N, P], or None.
    """
    noise = np.full(len(flux), np.nan, np.float32)
    if flux_error is not None:
        known = np.isfinite(flux_error) & (flux_error > 0)
        whole = known.all(axis=1)
        noise[whole] = np.median(flux_error[whole], axis=1)
        for i in np.flatnonzero(~whole & known.any(axis=1)):
            noise[i] = np.median(flux_error[i, known[i]])
    bare = np.isnan(noise)
    second = 2 * flux[bare, 2:-2] - flux[bare, :-4] - flux[bare, 4:]
    noise[bare] = 1.482602 / np.sqrt(6) * np.median(np.abs(second), axis=1)
    return noise
