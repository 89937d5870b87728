"""A survey as a data module: read into memory, split, cleaned, and served in whole batches.

Shapes: N stars, P pixels, K labels.
"""

from collections.abc import Callable, Sequence

import lightning as L
import numpy as np
import torch
from torch import Tensor

from spectangle.configs.label_lambdas import OTHERS
from spectangle.data.stars import (
    TEST,
    TRAIN,
    VALIDATION,
    Batches,
    Stars,
    class_codes,
    fill_masked,
    flux_noise,
    label_errors,
    label_weights,
    roles,
    star_order,
    true_labels,
)
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.survey.star_draws import star_uniform

__all__ = ["SpectraDataModule"]


class SpectraDataModule(L.LightningDataModule):
    """Serve the training, validation and test stars of a survey file.

    Arguments:
        path: Survey file, see :class:`~spectangle.survey.file.Survey`.
        labels: Names of the labels to use; all of the survey's by default. A star may lack some or all of them: it is
            then no test of these, but its spectrum teaches like any other.
        attributes: Columns of the survey with classes, such as the instrument: A of them. They are entangled or
            disentangled as labels are, but not read.
        require: Labels without which a star is left out; ``all`` of them, or names.
        label_weight: ``errors``: stars count by the errors of their labels, see
            :func:`~spectangle.data.stars.label_weights`; ``none``.
        n_stars: Use only this many stars, drawn with ``split_seed``; all by default. A star has the same role in each
            of these subsets.
        test_fraction: Fraction of the stars for the final table (paper: 20 %), read once.
        validation_fraction: Fraction of the remaining stars that training never sees, for every choice.
        folds, fold: Cross-validation: the test stars are the ``fold``-th (from 0) of ``folds`` parts, instead of
            ``test_fraction``; over all folds each star is tested once.
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
        attributes: Sequence[str] = (),
        require: Sequence[str] | str = (),
        label_weight: str = "none",
        seed: int = 0,
    ):
        super().__init__()
        if batch_size < 2:
            raise SpectangleError(f"data.batch_size is {batch_size}; it must be at least 2.")
        for name, value in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
            if not 0 < value < 1:
                raise SpectangleError(f"data.{name} is {value}; it must lie between 0 and 1.")
        if folds is not None and not (folds >= 2 and 0 <= fold < folds):
            raise SpectangleError(
                f"data.folds is {folds} and data.fold {fold}; give 2 folds or more, and a fold from 0 to folds - 1."
            )
        self.path, self.wanted_labels, self.n_stars = path, labels, n_stars
        self.test_fraction, self.validation_fraction, self.split_seed = test_fraction, validation_fraction, split_seed
        self.folds, self.fold, self.attributes = folds, fold, tuple(attributes or ())
        self.require, self.label_weight = require, label_weight
        self.batch_size, self.max_masked_fraction, self.seed = batch_size, max_masked_fraction, seed
        self.notes: list[str] = []
        self._ready = False

    @property
    def fingerprint(self) -> dict[str, object]:
        """What decides which stars are where: two data modules that agree here serve the same stars."""
        return {
            "survey": self.content_hash,
            "labels": list(self.labels),
            "attributes": list(self.attributes),
            "n_stars": self.n_stars,
            "test_fraction": self.test_fraction,
            "validation_fraction": self.validation_fraction,
            "folds": self.folds,
            "fold": self.fold if self.folds else None,
            "split_seed": self.split_seed,
            "max_masked_fraction": self.max_masked_fraction,
            "require": self.required,
            "label_weight": self.label_weight,
        }

    @property
    def required(self) -> list[str]:
        """Labels without which a star is left out."""
        if self.require == "all":
            return list(self.labels)
        names = [self.require] if isinstance(self.require, str) else list(self.require or ())
        if unknown := [name for name in names if name not in self.labels]:
            raise SpectangleError(
                f"labels.require names {unknown[0]}; the labels are {', '.join(self.labels)}. Name some, or all."
            )
        return names

    @property
    def incomplete(self) -> list[str]:
        """Labels that some stars lack."""
        known = np.all([torch.isfinite(stars.labels).all(0).numpy() for stars in self._roles], axis=0)
        return [name for name, complete in zip(self.labels, known, strict=True) if not complete]

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
        for stars in self._roles:
            stars.classes = classify(stars.targets)

    def train_dataloader(self) -> Batches:
        self.setup()

        def order() -> Tensor:
            epoch = self.trainer.current_epoch if self.trainer is not None else 0
            return star_order(len(self.train), self.seed, epoch)

        return Batches(self.training_tensors, self.batch_size, order)

    def val_dataloader(self) -> Batches:
        self.setup()
        return Batches(self._on_device(self.validation), 4096)

    @property
    def training_tensors(self) -> list[Tensor]:
        """What a batch is drawn from: flux [N, P], noise [N], labels and codes, classes and weights [N, K + A]."""
        return self._on_device(self.train)

    @property
    def _roles(self) -> tuple[Stars, Stars, Stars]:
        return self.train, self.validation, self.test

    def _on_device(self, stars: Stars) -> list[Tensor]:
        """The tensors of some stars, on the trainer's device: a survey of paper size fits on any GPU."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return [tensor.to(device) for tensor in (stars.flux, stars.noise, stars.targets, stars.classes, stars.weights)]

    def _read(self, survey: Survey) -> None:
        self.labels = tuple(self.wanted_labels or survey.labels)
        self.content_hash, self.wavelength = survey.content_hash, survey.wavelength
        self.origin = survey.attributes["origin"]
        self.units = {name: survey.unit(name) for name in self.labels}
        self.n_pixels = survey.n_pixels
        labels = np.stack([survey.label(name) for name in self.labels], axis=1)
        labels[~np.isfinite(labels)] = np.nan  # an infinite one is as unknown as one that is missing
        flux, source_id = survey.flux(), survey.source_id
        good = self._drawn(self._good_rows(flux, labels), source_id)
        role = roles(
            source_id[good], self.test_fraction, self.validation_fraction, self.split_seed, self.folds, self.fold
        )
        parts = [good[role == which] for which in (TRAIN, VALIDATION, TEST)]
        fill_masked(flux, parts[TRAIN])
        noise = np.concatenate([flux_noise(flux[i:j], survey.flux_error(i, j)) for i, j in survey.chunks()])
        self._check_attributes()
        codes, self.classes = class_codes(survey, self.attributes, good)
        errors = label_errors(survey, self.labels)
        if self.label_weight == "errors":
            bare = [name for name, own in zip(self.labels, errors.T, strict=True) if not (own > 0).any()]
            self.notes += [f"No errors of {', '.join(bare)}: all stars count alike."] if bare else []
        weights = np.hstack([label_weights(errors, self.label_weight), np.ones_like(codes)])
        everyone = Stars(
            rows=np.arange(len(survey)),
            source_id=source_id,
            flux=torch.from_numpy(flux),
            noise=torch.from_numpy(noise),
            labels=torch.from_numpy(labels),
            label_errors=errors,
            true_labels=true_labels(survey, self.labels),
            attributes=torch.from_numpy(codes),
            weights=torch.from_numpy(weights),
            classes=torch.zeros(len(survey), 0),
        )
        self.train, self.validation, self.test = (everyone[np.sort(rows)] for rows in parts)
        self._check_labels()

    def _drawn(self, rows: np.ndarray, source_id: np.ndarray) -> np.ndarray:
        """The ``n_stars`` rows with the smallest hash: a smaller number is a subset of a larger one."""
        if self.n_stars is None:
            return rows
        if not 20 <= self.n_stars <= len(rows):
            raise SpectangleError(
                f"data.n_stars is {self.n_stars}; it must lie between 20 and the {len(rows)} usable stars of the "
                "survey."
            )
        return rows[np.argsort(star_uniform(source_id[rows], self.split_seed, stream=2))[: self.n_stars]]

    def _good_rows(self, flux: np.ndarray, labels: np.ndarray) -> np.ndarray:
        masked = np.concatenate([1 - np.isfinite(flux[i : i + 4096]).mean(axis=1) for i in range(0, len(flux), 4096)])
        required = self.required
        unlabelled = ~np.isfinite(labels[:, [self.labels.index(name) for name in required]]).all(axis=1)
        missing = masked > self.max_masked_fraction
        if missing.any():
            self.notes.append(
                f"{missing.sum()} stars left out: more than {self.max_masked_fraction:.0%} of their pixels are masked."
            )
        if unlabelled.any():
            self.notes.append(f"{unlabelled.sum()} stars left out: without {' or '.join(required)}.")
        good = np.flatnonzero(~missing & ~unlabelled)
        if len(good) < 20:
            raise SpectangleError(
                f"{self.path} has {len(good)} usable stars of {len(flux)} ({missing.sum()} mostly masked, "
                f"{unlabelled.sum()} without labels); "
                "training needs at least 20. Check flux and labels for NaN, or raise data.max_masked_fraction."
            )
        return good

    def _check_attributes(self) -> None:
        """Refuse names of attributes that mean something else."""
        for name in self.attributes:
            if name in (*self.labels, OTHERS) or self.attributes.count(name) > 1:
                why = "is there twice" if self.attributes.count(name) > 1 else "is the name of a label"
                why = "means every other label in lambdas" if name == OTHERS else why
                raise SpectangleError(
                    f"labels.attributes names {name}, which {why}; name columns of the survey with classes, each once."
                )

    def _check_labels(self) -> None:
        """Refuse a label or a class that too few stars have, and note how many lack a label."""
        for a, (attribute, classes) in enumerate(self.classes.items()):
            for code, word in enumerate(classes):
                counts = [int((stars.attributes[:, a] == code).sum()) for stars in self._roles]
                if counts[0] < 10 or min(counts) < 2:
                    raise SpectangleError(
                        f"{self.path} has the {attribute} '{word}' of {counts[0]} training, {counts[1]} validation and "
                        f"{counts[2]} test stars; 10, 2 and 2 are needed. Cut these stars, or leave {attribute} out of "
                        "labels.attributes."
                    )
        counts = np.array([torch.isfinite(stars.labels).sum(0).numpy() for stars in self._roles])
        for name, (train, *held) in zip(self.labels, counts.T, strict=True):
            if train < 12 or min(held) < 2:
                raise SpectangleError(
                    f"{self.path} has the label {name} of {train} training, {held[0]} validation and {held[1]} test "
                    "stars; 12, 2 and 2 are needed. Leave it out with data.labels."
                )
        total = sum(len(stars) for stars in self._roles)
        lacking = {name: total - int(n) for name, n in zip(self.labels, counts.sum(0), strict=True) if n < total}
        if lacking:
            words = ", ".join(f"{name} of {n}" for name, n in lacking.items())
            self.notes.append(f"Labels are missing: {words} stars; these teach by their spectra and other labels.")
