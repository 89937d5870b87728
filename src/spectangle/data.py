"""Stars for training: a survey read into memory, split, cleaned, and served in whole batches.

Shapes: N stars, P pixels, K labels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from spectangle.caching import cache_folder
from spectangle.errors import SpectangleError
from spectangle.runs import made_once
from spectangle.star_draws import star_uniform
from spectangle.survey import Survey

__all__ = ["EmbeddedSurveyDataModule", "SpectraDataModule", "Stars", "roles"]

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass
class Stars:
    """Some stars in memory.

    Row in the survey [N], source_id [N], flux [N, P], its noise [N], labels [N, K] as the catalogue has them, their errors [N, K]
    (NaN where it has none), the true labels [N, K] (NaN where nobody knows them), classes [N, K].
    """

    rows: np.ndarray
    source_id: np.ndarray
    flux: Tensor
    noise: Tensor
    labels: Tensor
    label_errors: np.ndarray
    true_labels: np.ndarray
    classes: Tensor

    def __len__(self) -> int:
        return len(self.rows)


class Batches:
    """Index whole batches out of tensors; a DataLoader would collect them star by star.

    Arguments:
        tensors: Any number of tensors with N rows.
        batch_size: Stars per batch.
        order: None for the stars' own order, or a function that returns a permutation [N] for each pass.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, order: Callable[[], Tensor] | None = None):
        self.tensors, self.batch_size, self.order = tensors, batch_size, order

    def __len__(self) -> int:
        n = len(self.tensors[0])
        return -(-n // self.batch_size) - self._drops_last(n)

    def _drops_last(self, n: int) -> bool:
        """Whether a last batch of one star is left out: batch normalisation cannot train on it."""
        return self.order is not None and n > 1 and n % self.batch_size == 1

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        n = len(self.tensors[0])
        rows = torch.arange(n) if self.order is None else self.order()
        rows = rows.to(self.tensors[0].device)
        for start in range(0, n - self._drops_last(n), self.batch_size):
            yield tuple(tensor[rows[start : start + self.batch_size]] for tensor in self.tensors)


class SpectraDataModule(L.LightningDataModule):
    """Serve the training, validation and test stars of a survey file.

    Arguments:
        path: Survey file (DESIGN: flux, wavelength, source_id, labels).
        labels: Names of the labels to use; all of the survey's by default.
        n_stars: Use only this many stars, drawn with ``split_seed``; all by default. A star has the same role in each of these subsets.
        test_fraction: Fraction of the stars for the final table (paper: 20 %), read once.
        validation_fraction: Fraction of the remaining stars that training never sees, for every choice.
        folds, fold: Cross-validation: the test stars are the ``fold``-th (from 0) of ``folds`` parts, instead of ``test_fraction``; over
            all folds each star is tested once.
        split_seed: Seed of the hash that gives each star its role.
        batch_size: Stars per batch.
        max_masked_fraction: A star with more masked (not finite) pixels than this is left out; the masked pixels of the
            others are filled with the training mean of the pixel.
        seed: Seed of the order of training stars.

    Raises:
        SpectangleError: The file breaks the format, or too few good stars remain.
    """

    def __init__(
        self,
        path: str | None,
        labels: Sequence[str] | None = None,
        n_stars: int | None = None,
        test_fraction: float = 0.2,
        validation_fraction: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        batch_size: int = 256,
        max_masked_fraction: float = 0.2,
        seed: int = 0,
    ):
        super().__init__()
        if batch_size < 2:
            raise SpectangleError(f"data.batch_size is {batch_size}; it must be at least 2.")
        for name, value in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
            if not 0 < value < 1:
                raise SpectangleError(f"data.{name} is {value}; it must lie between 0 and 1.")
        if folds is not None and not (folds >= 2 and 0 <= fold < folds):
            raise SpectangleError(f"data.folds is {folds} and data.fold {fold}; give 2 folds or more, and a fold from 0 to folds - 1.")
        self.path, self.wanted_labels, self.n_stars = path, labels, n_stars
        self.test_fraction, self.validation_fraction, self.split_seed = test_fraction, validation_fraction, split_seed
        self.folds, self.fold = folds, fold
        self.batch_size, self.max_masked_fraction, self.seed = batch_size, max_masked_fraction, seed
        self.notes: list[str] = []
        self._ready = False

    @property
    def fingerprint(self) -> dict[str, object]:
        """What decides which stars are where: two data modules that agree here serve the same stars."""
        return {
            "survey": self.content_hash,
            "labels": list(self.labels),
            "n_stars": self.n_stars,
            "test_fraction": self.test_fraction,
            "validation_fraction": self.validation_fraction,
            "folds": self.folds,
            "fold": self.fold if self.folds else None,
            "split_seed": self.split_seed,
            "max_masked_fraction": self.max_masked_fraction,
        }

    def setup(self, stage: str | None = None) -> None:
        if self._ready:
            return
        if not self.path:
            raise SpectangleError("data.path is empty; give a survey file: data=survey data.path=my.h5.")
        with Survey(self.path) as survey:
            self._read(survey)
        self._ready = True

    def classify_with(self, classify: Callable[[Tensor], Tensor]) -> None:
        """Give every star the classes that the discriminators are asked for."""
        for stars in (self.train, self.validation, self.test):
            stars.classes = classify(stars.labels)

    def train_dataloader(self) -> Batches:
        def order() -> Tensor:
            epoch = self.trainer.current_epoch if self.trainer is not None else 0
            return torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))

        return Batches(self._on_device(self.train), self.batch_size, order)

    def val_dataloader(self) -> Batches:
        return Batches(self._on_device(self.validation), 4096)

    def _on_device(self, stars: Stars) -> list[Tensor]:
        """The tensors of some stars, on the trainer's device: a survey of paper size fits on any GPU."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return [tensor.to(device) for tensor in (stars.flux, stars.noise, stars.labels, stars.classes)]

    def _read(self, survey: Survey) -> None:
        self.labels = tuple(self.wanted_labels or survey.labels)
        self.content_hash, self.wavelength = survey.content_hash, survey.wavelength
        self.origin = survey.attributes["origin"]
        self.units = {name: survey.unit(name) for name in self.labels}
        self.n_pixels = survey.n_pixels
        labels = np.stack([survey.label(name) for name in self.labels], axis=1)
        flux, source_id = survey.flux(), survey.source_id
        good = self._drawn(self._good_rows(flux, labels), source_id)
        role = roles(source_id[good], self.test_fraction, self.validation_fraction, self.split_seed, self.folds, self.fold)
        parts = [good[role == which] for which in (TRAIN, VALIDATION, TEST)]
        _fill_masked(flux, parts[TRAIN])
        noise = np.concatenate([flux_noise(flux[i:j], survey.flux_error(i, j)) for i, j in survey.chunks()])
        errors, truth = label_errors(survey, self.labels), true_labels(survey, self.labels)
        self.train, self.validation, self.test = (_select(flux, noise, labels, errors, truth, source_id, rows) for rows in parts)

    def _drawn(self, rows: np.ndarray, source_id: np.ndarray) -> np.ndarray:
        """The ``n_stars`` rows with the smallest hash: a smaller number is a subset of a larger one."""
        if self.n_stars is None:
            return rows
        if not 20 <= self.n_stars <= len(rows):
            raise SpectangleError(f"data.n_stars is {self.n_stars}; it must lie between 20 and the {len(rows)} usable stars of the survey.")
        return rows[np.argsort(star_uniform(source_id[rows], self.split_seed, stream=2))[: self.n_stars]]

    def _good_rows(self, flux: np.ndarray, labels: np.ndarray) -> np.ndarray:
        masked = np.concatenate([1 - np.isfinite(flux[i : i + 4096]).mean(axis=1) for i in range(0, len(flux), 4096)])
        unlabelled = ~np.isfinite(labels).all(axis=1)
        missing = masked > self.max_masked_fraction
        if missing.any():
            self.notes.append(f"{missing.sum()} stars left out: more than {self.max_masked_fraction:.0%} of their pixels are masked.")
        if unlabelled.any():
            self.notes.append(f"{unlabelled.sum()} stars left out: a label is missing.")
        good = np.flatnonzero(~missing & ~unlabelled)
        if len(good) < 20:
            raise SpectangleError(
                f"{self.path} has {len(good)} usable stars of {len(flux)} ({missing.sum()} mostly masked, {unlabelled.sum()} without labels); "
                "training needs at least 20. Check flux and labels for NaN, or raise data.max_masked_fraction."
            )
        return good


class EmbeddedSurveyDataModule(SpectraDataModule):
    """Serve the embedded survey: synthetic Gaia RVS spectra of a realistic population, made once and kept in the cache.

    Arguments:
        n_stars: Number of stars (paper: 64,305).
        survey_seed: Seed of the population and of the noise.
        **options: Options of :class:`SpectraDataModule`.
    """

    def __init__(self, n_stars: int = 64305, survey_seed: int = 0, **options):
        super().__init__(path=None, **options)
        if n_stars < 20:
            raise SpectangleError(f"data.n_stars is {n_stars}; training needs at least 20 stars.")
        self._size, self._survey_seed = n_stars, survey_seed

    def setup(self, stage: str | None = None) -> None:
        from spectangle import synthetic

        if not self._ready:
            self.path = str(cache_folder() / f"embedded-{self._size}-{self._survey_seed}-{synthetic.fingerprint()}.h5")
            with made_once(Path(self.path)) as missing:
                if missing:
                    synthetic.write_survey(self.path, n_stars=self._size, seed=self._survey_seed)
        super().setup(stage)


def roles(source_id: np.ndarray, test_fraction: float, validation_fraction: float, seed: int, folds: int | None = None, fold: int = 0) -> np.ndarray:
    """Role of each star [N]: 0 training, 1 validation, 2 test, by a hash of (seed, source_id) alone.

    No other star matters, nor does the order of the file: what is a test star in a subset of a survey is one in the whole, and a cut
    star leaves the others as they are. The fractions are met as a random draw meets them.
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


def true_labels(survey: Survey, labels: Sequence[str]) -> np.ndarray:
    """True labels [N, K], which synthetic surveys keep in the columns ``true_<label>``; NaN where nobody knows them."""
    known = [f"true_{name}" for name in labels]
    columns = [survey.column(name) if name in survey.columns else np.full(len(survey), np.nan) for name in known]
    return np.stack(columns, axis=1).astype(np.float32)


def _fill_masked(flux: np.ndarray, train: np.ndarray) -> None:
    """Fill masked pixels of flux [N, P] with the mean of the pixel over training stars, in place."""
    total, count = np.zeros(flux.shape[1]), np.zeros(flux.shape[1])
    for rows in np.array_split(np.sort(train), max(1, len(train) // 4096)):
        finite = np.isfinite(flux[rows])
        total += np.where(finite, flux[rows], 0.0).sum(0, dtype=np.float64)
        count += finite.sum(0)
    if (empty := count == 0).any():
        raise SpectangleError(f"{empty.sum()} of {len(empty)} pixels are masked in every training star; cut them from the survey.")
    mean = (total / count).astype(np.float32)
    for start in range(0, len(flux), 4096):
        part = flux[start : start + 4096]
        np.copyto(part, mean, where=~np.isfinite(part))


def flux_noise(flux: np.ndarray, flux_error: np.ndarray | None) -> np.ndarray:
    r"""Noise of a pixel of each spectrum [N]: the median flux error; where there is none, what the spectrum itself shows.

    That is DER_SNR (Stoehr et al. 2008, ASPC 394, 505), :math:`1.482602 / \sqrt 6 \; \mathrm{median} |2 f_i - f_{i-2} - f_{i+2}|`: right
    where the flux changes slowly over five pixels, too large where lines are narrow.

    Arguments:
        flux: [N, P].
        flux_error: [N, P], or None.
    """
    estimate = 1.482602 / np.sqrt(6) * np.median(np.abs(2 * flux[:, 2:-2] - flux[:, :-4] - flux[:, 4:]), axis=1)
    if flux_error is not None:
        known = np.where(np.isfinite(flux_error) & (flux_error > 0), flux_error, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a star without any error
            median = np.nanmedian(known, axis=1)
        estimate = np.where(np.isfinite(median), median, estimate)
    return estimate.astype(np.float32)


def _select(
    flux: np.ndarray, noise: np.ndarray, labels: np.ndarray, errors: np.ndarray, truth: np.ndarray, source_id: np.ndarray, rows: np.ndarray
) -> Stars:
    rows = np.sort(rows)
    x, sigma, y = (torch.from_numpy(values[rows]) for values in (flux, noise, labels))
    return Stars(rows, source_id[rows], x, sigma, y, errors[rows], truth[rows], classes=torch.zeros(len(rows), 0))
