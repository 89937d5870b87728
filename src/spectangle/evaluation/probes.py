r"""Probes: independent regressors that measure what is left in the latent, whatever the adversary says.

A discriminator at chance does not mean that a label is gone: the encoder may hide it from that discriminator. Probes
are fitted on the frozen latents of stars that the encoder never saw, and scored on others of them; leakage is what they
find together.

Shapes: N stars, Z latent, K labels.
"""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from scipy.linalg import LinAlgWarning

from spectangle.caching import cache_key, cached, settings
from spectangle.console import render
from spectangle.evaluation.downstream import DownstreamRegressor, best_model
from spectangle.evaluation.leakage import CrossFit, Measured, Predictions, bootstrap_r2, leaks, share_lost, stacked
from spectangle.evaluation.probe_table import attribute_table, disagreements, probe_table
from spectangle.metrics import balanced_accuracy, r2

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.data.stars import Stars
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["Probes"]

log = logging.getLogger(__name__)

CONTROL_FOLDS = (0, 1)  # of many stars: some thousand show that permuted labels cannot be read
COMPONENTS = 50  # of the raw spectra, which the reference is read from: more are noise, and cost the probes time


class Probes(L.Callback):
    r"""Probe the latent of the best checkpoint on test stars after training, and on validation stars during it if
    asked.

    Probes are cross-fitted inside stars that the encoder never saw (see
    :class:`~spectangle.evaluation.leakage.CrossFit`): five folds of the test stars, with the validation stars among
    those that are fitted on; for every choice, five folds of the validation stars alone.

    For each label: ``probe/<label>/<probe>/r2``; ``probe/<label>/r2``, all of them stacked, the downstream regressor
    among them, and never less than that regressor alone, with its 95 % bootstrap interval ``r2_low``, ``r2_high``;
    ``probe/<label>/seen``, the best that
    is fitted on training stars, where the adversary has been at work; ``probe/<label>/control``, the strongest probe on
    permuted labels (about 0); ``disentanglement/<label>`` and ``retention/<label>`` against the same probes on raw
    spectra (cached). For each disentangled
    label (see :func:`~spectangle.evaluation.leakage.leaks`): ``floor/<label>``, ``excess/<label>`` with ``excess_low``,
    ``excess_high``, and ``floor_decoder/<label>``. The largest excess is ``largest_excess``; ``excess_is_upper_bound``
    is 1 where the kept labels have errors that
    the survey does not know.

    Of an attribute, the same probes are asked for each of its C classes (1 or 0), and the star is given the class whose
    prediction is largest in units of its share: ``probe/<attribute>/balanced_accuracy`` with its interval, beside
    ``probe/<attribute>/chance`` = 1 / C and ``reference/<attribute>/balanced_accuracy`` on raw spectra; floor and
    excess are of the class with the largest excess.

    Arguments:
        large: Unfitted scikit-learn regressors by name, for surveys with many stars.
        small: The same for few stars; they are also fitted on seen and unseen stars together.
        small_below: So many stars, seen and unseen, are few.
        cache: Folder where the reference on raw spectra is cached; None leaves the reference out.
        max_stars: Fit probes on at most this many unseen stars (and as many seen ones), drawn by ``seed``; None = all.
            Fewer find less.
        bootstrap: Resamples of the scored stars.
        every_n_epochs: Also probe validation stars (``val/probe/<label>/r2``, ``val/excess/<label>``) every so many
            epochs; 0 = never.
        seed: Seed of the drawn stars, the resamples and the permutation.
    """

    def __init__(
        self,
        large: Mapping[str, Any],
        small: Mapping[str, Any] | None = None,
        small_below: int = 5000,
        cache: str | None = None,
        max_stars: int | None = None,
        bootstrap: int = 200,
        every_n_epochs: int = 0,
        seed: int = 0,
    ):
        self.large, self.small, self.small_below = dict(large), dict(large if small is None else small), small_below
        self.cache = None if cache is None else Path(cache)
        self.max_stars, self.bootstrap, self.every_n_epochs, self.seed = max_stars, bootstrap, every_n_epochs, seed
        self.metrics: dict[str, float] = {}

    def on_validation_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        """Probe validation stars, early enough for a checkpoint to monitor it."""
        if trainer.sanity_checking or not self.every_n_epochs or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        scores = self.score(pl_module, trainer.datamodule, trainer.datamodule.validation, prefix="val/", full=False)
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scores.items()})
        for logger in trainer.loggers:
            logger.log_metrics(scores | {"epoch": trainer.current_epoch}, step=trainer.global_step)

    def on_fit_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        """Probe the best checkpoint on test stars, print the table and warn where adversary and probe disagree."""
        model, data = best_model(trainer, pl_module), trainer.datamodule
        start = time.perf_counter()
        regressor = next(
            (callback.fitted for callback in trainer.callbacks if isinstance(callback, DownstreamRegressor)), None
        )
        self.metrics = self.score(model, data, data.test, spare=data.validation, regressor=regressor)
        self.metrics["time/probes"] = time.perf_counter() - start
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics)
        gains = {
            name: float(
                trainer.callback_metrics.get(
                    f"val/discriminator_gain/{'joint' if model.adversary.joint else name}", np.nan
                )
            )
            for name in (*data.labels, *data.attributes)
        }
        log.info("%s", render(probe_table(self.metrics, data.labels, gains)))
        if data.attributes:
            log.info("%s", render(attribute_table(self.metrics, data.attributes, gains)))
        for warning in disagreements(self.metrics, gains, model):
            log.warning("%s", warning)

    def score(
        self,
        model: "DisentanglingAutoencoder",
        data: "SpectraDataModule",
        stars: "Stars",
        spare: "Stars | None" = None,
        prefix: str = "",
        full: bool = True,
        regressor: Any = None,
    ) -> dict[str, float]:
        """Score unseen ``stars``, with ``spare`` unseen ones to fit on; ``full`` adds what probes fitted on training
        stars find, the
        control and the reference."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", LinAlgWarning
            )  # dead or erased directions leave a singular covariance; ridge copes
            parts = [part and measured(part, model.embed_stars(part), data) for part in (data.train, stars, spare)]
            fit = self._cross_fit(*parts)  # pyright: ignore[reportArgumentType]  # spare alone may be None
            candidates = fit.predictions(_latent, _labels)
            trained = fit.from_seen(_latent, _labels) if full or fit.small else {}
            if regressor is not None:
                shares = np.nanmean(fit.seen.labels[:, len(data.labels) :], axis=0)  # it reads no attribute
                read = np.asarray(regressor.predict(fit.scored.z))
                trained["regressor/seen"] = np.c_[read, np.tile(shares, (len(read), 1))]
            scores = self._leakage(prefix, data.labels, fit, candidates, trained, control=full)
            places = target_columns(data)
            for name, columns in list(places.items())[len(data.labels) :]:
                scores |= self._attribute(f"{prefix}probe/{name}", fit, candidates | trained, columns)
            if full and self.cache is not None:
                scores |= self._against_spectra(data, scores)
            if model.adversary.disentangled:
                columns = list(places.values())
                kept = [column for i in model.adversary.entangled for column in columns[i]]
                lost = {name: places[name] for name in (list(places)[i] for i in model.adversary.disentangled)}
                scores |= self._excess(prefix, fit, candidates | trained, kept, lost)
        return {key: float(value) for key, value in scores.items() if np.isfinite(value)}

    def _cross_fit(self, seen: Measured, scored: Measured, spare: Measured | None) -> CrossFit:
        unseen = len(scored) + (0 if spare is None else len(spare))
        small = unseen + len(seen) < self.small_below
        seen = self._drawn(seen, self.max_stars if small else min(self.max_stars or unseen, unseen))
        if self.max_stars is not None:
            scored, spare = self._drawn(scored, self.max_stars), None
        return CrossFit(self.small if small else self.large, seen, scored, spare, small=small)

    def _drawn(self, stars: Measured, n: int | None) -> Measured:
        if n is None or n >= len(stars):
            return stars
        return stars[np.sort(np.random.default_rng(self.seed).permutation(len(stars))[:n])]

    def _leakage(
        self,
        prefix: str,
        labels: Sequence[str],
        fit: CrossFit,
        candidates: Predictions,
        trained: Predictions,
        control: bool,
    ) -> dict[str, float]:
        scores: dict[str, float] = {}
        for i, label in enumerate(labels):
            path, truth = f"{prefix}probe/{label}", fit.scored.labels[:, i].astype(np.float64)
            each = {name: r2(prediction[:, i], truth) for name, prediction in (candidates | trained).items()}
            best = stacked([prediction[:, i] for prediction in (candidates | trained).values()], truth, fit.fold)
            regressor = trained.get("regressor/seen")
            if regressor is not None and each["regressor/seen"] > r2(best, truth):
                best = regressor[:, i]
            draws = bootstrap_r2([best], truth, self.bootstrap, self.seed)[0]
            scores |= {f"{path}/{name}/r2": value for name, value in each.items()}
            scores |= {
                f"{path}/stars": np.isfinite(truth).sum(),
                f"{path}/r2": r2(best, truth),
                f"{path}/r2_low": np.quantile(draws, 0.025),
                f"{path}/r2_high": np.quantile(draws, 0.975),
            }
            if seen := [value for name, value in each.items() if name.endswith("/seen")]:
                scores[f"{path}/seen"] = max(seen)
        if control:
            controls = zip(labels, self._controls(fit, candidates), strict=False)  # attributes come behind
            scores |= {f"{prefix}probe/{label}/control": value for label, value in controls}
        return scores

    def _attribute(self, path: str, fit: CrossFit, candidates: Predictions, columns: Sequence[int]) -> dict[str, float]:
        """Balanced accuracy of the classes of an attribute, from the probes' predictions of each class."""
        truth, found = _classes_read(fit, candidates, columns)
        random = np.random.default_rng(self.seed)
        draws = [
            balanced_accuracy(truth[rows], found[rows], len(columns))
            for rows in (random.integers(len(truth), size=len(truth)) for _ in range(self.bootstrap))
        ]
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return {
            f"{path}/balanced_accuracy": balanced_accuracy(truth, found, len(columns)),
            f"{path}/balanced_accuracy_low": low,
            f"{path}/balanced_accuracy_high": high,
            f"{path}/chance": 1 / len(columns),
            f"{path}/stars": len(truth),
        }

    def _controls(self, fit: CrossFit, candidates: Predictions) -> list[float]:
        """R2 of each label when the strongest probe is fitted and scored on labels that were permuted among the unseen
        stars: about 0.
        """
        truths = fit.scored.labels.astype(np.float64)
        strongest = max(
            fit.probes, key=lambda name: sum(r2(p, t) for p, t in zip(candidates[name].T, truths.T, strict=True))
        )
        random = np.random.default_rng(self.seed)
        shuffled = [_permuted(part, random) for part in (fit.seen, fit.scored, fit.spare)]
        permuted = CrossFit(fit.probes, *shuffled, small=fit.small, folds=fit.folds)  # pyright: ignore[reportArgumentType]
        folds = range(fit.folds) if fit.small else CONTROL_FOLDS
        found = permuted.predictions(_latent, _labels, {strongest: fit.probes[strongest]}, folds)
        rows = np.isin(permuted.fold, folds)
        truths, fold = permuted.scored.labels[rows].astype(np.float64), permuted.fold[rows]
        parts = [prediction[rows] for prediction in found.values()]
        best = [stacked([part[:, i] for part in parts], truth, fold) for i, truth in enumerate(truths.T)]
        return [r2(prediction, truth) for prediction, truth in zip(best, truths.T, strict=True)]

    def _excess(
        self,
        prefix: str,
        fit: CrossFit,
        z_only: Predictions,
        entangled: list[int],
        disentangled: Mapping[str, Sequence[int]],
    ) -> dict[str, float]:
        """Floors and excesses of disentangled labels and attributes, each with its columns."""
        columns = [column for own in disentangled.values() for column in own]
        found = leaks(fit, z_only, entangled, columns, self.bootstrap, self.seed)
        scores: dict[str, float] = {}
        for name, own in disentangled.items():
            measured_ones = [found[column] for column in own if column in found]
            if not measured_ones:
                log.warning("warning: no excess of %s: too few of the scored stars have it and all kept labels.", name)
                continue
            leak = max(measured_ones, key=lambda one: one.excess)
            scores |= {
                f"{prefix}excess_stars/{name}": leak.stars,
                f"{prefix}floor/{name}": leak.floor,
                f"{prefix}floor_decoder/{name}": leak.decoder,
                f"{prefix}excess/{name}": leak.excess,
            }
            scores |= {f"{prefix}excess_low/{name}": leak.low, f"{prefix}excess_high/{name}": leak.high}
        if found:
            scores[f"{prefix}largest_excess"] = max(leak.excess for leak in found.values())
            scores[f"{prefix}excess_is_upper_bound"] = float(any(leak.upper_bound for leak in found.values()))
        return scores

    def _against_spectra(self, data: "SpectraDataModule", scores: Mapping[str, float]) -> dict[str, float]:
        reference = self._reference(data)
        found = {f"reference/{name}/balanced_accuracy": reference[name] for name in data.attributes}
        for label in data.labels:
            lost = share_lost(scores[f"probe/{label}/r2"], reference[label])
            found |= {
                f"reference/{label}/r2": reference[label],
                f"disentanglement/{label}": lost,
                f"retention/{label}": 1 - lost,
            }
        return found

    def _reference(self, data: "SpectraDataModule") -> dict[str, float]:
        """R2 of each label from the raw spectra by the same probes, once for each (survey, split, probes)."""
        assert self.cache is not None
        suites = [settings(suite) for suite in (self.large, self.small)]
        key = cache_key(data.fingerprint, suites, self.small_below, self.max_stars, self.seed)

        def make() -> dict[str, float]:
            log.info("probing the raw spectra once for this survey ...")
            return self._probed_spectra(data)

        return cached(self.cache / "baselines" / f"probes-{key}.json", make)

    def _probed_spectra(self, data: "SpectraDataModule") -> dict[str, float]:
        from sklearn.decomposition import PCA

        spectra = data.train.flux.numpy()
        components = PCA(min(COMPONENTS, *spectra.shape), svd_solver="randomized", random_state=0).fit(spectra)
        seen, scored, spare = (
            measured(part, components.transform(part.flux.numpy()), data)
            for part in (data.train, data.test, data.validation)
        )
        fit = self._cross_fit(seen, scored, spare)
        candidates = fit.predictions(_latent, _labels)
        truths, places = fit.scored.labels.astype(np.float64), target_columns(data)
        found = {
            label: r2(fit.stacked(candidates, i, truths[:, i]), truths[:, i]) for i, label in enumerate(data.labels)
        }
        for name in data.attributes:
            found[name] = balanced_accuracy(*_classes_read(fit, candidates, places[name]), len(places[name]))
        return found


def target_columns(data: "SpectraDataModule") -> dict[str, list[int]]:
    """Columns of :func:`measured` by label and attribute: one of a label, one for each class of an attribute."""
    columns, start = {name: [i] for i, name in enumerate(data.labels)}, len(data.labels)
    for name, classes in data.classes.items():
        columns[name] = list(range(start, start + len(classes)))
        start += len(classes)
    return columns


def measured(stars: "Stars", z: np.ndarray, data: "SpectraDataModule") -> Measured:
    """What probes need of some stars, with their latents [N, Z]; classes of attributes follow the labels, 1 or 0."""
    labels, errors, truth = [stars.labels.numpy()], [stars.label_errors], [stars.true_labels]
    for a, words in enumerate(data.classes.values()):
        code = stars.attributes[:, a].numpy()[:, None]
        is_class = np.where(np.isnan(code), np.nan, code == np.arange(len(words))).astype(np.float32)
        labels, errors, truth = [*labels, is_class], [*errors, 0 * is_class], [*truth, is_class]
    return Measured(stars.source_id, z, *(np.concatenate(parts, axis=1) for parts in (labels, errors, truth)))


def _classes_read(fit: CrossFit, candidates: Predictions, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the stars that have one [n], and those that the probes read: where a class is likelier than usual
    among the stars of the other folds (its share in a star's own fold is what a constant prediction is wrong about).
    """
    truth = fit.scored.labels[:, list(columns)].astype(np.float64)
    known = np.isfinite(truth[:, 0])
    likely = np.stack([fit.stacked(candidates, i, own) for i, own in zip(columns, truth.T, strict=True)], axis=1)
    for fold in np.unique(fit.fold):
        shares = truth[known & (fit.fold != fold)].mean(axis=0)
        likely[fit.fold == fold] /= shares.clip(min=1e-9)
    return truth[known].argmax(axis=1), (likely[known] - 1e-6 * np.arange(len(columns))).argmax(axis=1)


def _latent(stars: Measured) -> np.ndarray:
    return stars.z


def _labels(stars: Measured) -> np.ndarray:
    return stars.labels


def _permuted(stars: Measured | None, random: np.random.Generator) -> Measured | None:
    if stars is None:
        return None
    order = random.permutation(len(stars))
    return Measured(stars.source_id, stars.z, stars.labels[order], stars.label_errors[order], stars.true_labels[order])
