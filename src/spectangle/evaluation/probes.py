r"""Probes: independent regressors that measure what is left in the latent, whatever the adversary says.

A discriminator at chance does not mean that a label is gone: the encoder may hide it from that discriminator. Probes
are fitted on the frozen latents of stars that the encoder never saw, and scored on others of them; leakage is what they
find together, with probes and the run's regressor that were fitted on training stars and are scored on the same stars.

Shapes: N stars, Z latent, K labels.
"""

import logging
import time
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import lightning as L
import numpy as np
import torch
from scipy.linalg import LinAlgWarning

from spectangle.caching import Wanted, cache_key, cached, cached_each, settings
from spectangle.console import render
from spectangle.evaluation.cross_fit import CrossFit, Measured, Predictions
from spectangle.evaluation.downstream import DownstreamRegressor, best_model
from spectangle.evaluation.leakage import (
    Floor,
    FloorOf,
    floor_gains,
    floor_predictions,
    population_floor,
    share_lost,
)
from spectangle.evaluation.probe_scores import (
    attribute_scores,
    control_scores,
    excess_scores,
    label_scores,
    labels_of,
    latent_of,
    measured,
    spectra_scores,
    target_columns,
)
from spectangle.evaluation.probe_table import attribute_table, disagreements, probe_table
from spectangle.runs.sweep_link import link

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.data.stars import Stars
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["Probes"]

log = logging.getLogger(__name__)

COMPONENTS = 50  # of the raw spectra, which the reference is read from: more are noise, and cost the probes time


class Probes(L.Callback):
    r"""Probe the latent of the best checkpoint on test stars after training, and on validation stars during it if
    asked.

    Probes are cross-fitted inside stars that the encoder never saw (see
    :class:`~spectangle.evaluation.cross_fit.CrossFit`): five folds of the test stars, with the validation stars among
    those that are fitted on; for every choice, five folds of the validation stars alone.

    For each label: ``probe/<label>/<probe>/r2``; ``probe/<label>/r2``, all of them stacked, the same probes fitted on
    training stars and the downstream regressor among them, and never less than that regressor alone, with its 95 %
    bootstrap interval ``r2_low``, ``r2_high``; ``probe/<label>/seen``, the best that is fitted on training stars, where
    the adversary has been at work; ``probe/<label>/control``, the strongest probe on permuted labels (about 0);
    ``disentanglement/<label>`` and ``retention/<label>`` against the same probes on raw spectra (cached), left out
    where these do not hold the label (see :func:`~spectangle.evaluation.leakage.share_lost`). For each disentangled
    label (see :func:`~spectangle.evaluation.leakage.leaks`): ``floor/<label>``, ``excess/<label>`` with ``excess_low``,
    ``excess_high``, and ``floor_decoder/<label>``. ``probe/left_out`` counts the probes that were not asked
    (``gpu_packs_without``). The largest excess is ``largest_excess``; ``excess_is_upper_bound`` is 1 where the kept
    labels have errors that the survey does not know.

    Of an attribute, the same probes are asked for each of its C classes (1 or 0), and the star is given the class whose
    prediction is largest in units of its share: ``probe/<attribute>/balanced_accuracy`` with its interval, beside
    ``probe/<attribute>/chance`` = 1 / C and ``reference/<attribute>/balanced_accuracy`` on raw spectra; floor and
    excess are of the class with the largest excess.

    Arguments:
        large: Unfitted scikit-learn regressors by name, for surveys with many stars.
        small: The same for few stars; they are also fitted on seen and unseen stars together.
        small_below: So many stars, seen and unseen, are few.
        cache: Folder where the reference on raw spectra and floors are cached; None leaves the reference out.
        max_stars: Fit probes on at most this many unseen stars (and as many seen ones), drawn by ``seed``; None = all.
            Fewer find less.
        bootstrap: Resamples of the scored stars.
        every_n_epochs: Also probe validation stars (``val/probe/<label>/r2``, ``val/excess/<label>``) every so many
            epochs; 0 = never.
        seed: Seed of the drawn stars, the resamples and the permutation.
        coarse: Whether these probes are for first looks, which is said below the table: a weak probe sees too little of
            the floor, and takes for excess what it reads more easily of the latent.
        gpu_packs_without: Those of ``large`` that the runs of a sweep whose packs have a GPU do not ask of their
            latents: what it cannot fit, a few cores would have to fit for all of them. What all runs have in common,
            the floor and the reference, is measured by every probe.
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
        gpu_packs_without: Sequence[str] | None = None,
        coarse: bool = False,
    ):
        self.coarse = coarse
        self.gpu_packs_without = set(gpu_packs_without or ())
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
        if self.coarse:
            log.warning(
                "warning: these probes are for first looks: floors come out too low, and an excess several times too "
                "large. Leave probes=quick out to measure what is lost."
            )
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
            seen, scored = (measured(part, model.embed_stars(part), data) for part in (data.train, stars))
            others = measured(spare, model.embed_stars(spare), data) if spare else None
            without = self.gpu_packs_without if link.gpu_packs else set()
            fit = self._cross_fit(seen, scored, others, without)
            candidates = fit.predictions(latent_of, labels_of)
            trained = fit.from_seen(latent_of, labels_of) if full or fit.small else {}
            if regressor is not None:
                shares = np.nanmean(fit.seen.labels[:, len(data.labels) :], axis=0)  # it reads no attribute
                read = np.asarray(regressor.predict(fit.scored.z))
                trained["regressor/seen"] = np.c_[read, np.tile(shares, (len(read), 1))]
            drawn = {"bootstrap": self.bootstrap, "seed": self.seed}
            scores = label_scores(prefix, data.labels, fit, candidates, trained, **drawn)
            if full:
                scores |= control_scores(prefix, data.labels, fit, candidates, self.seed)
            places = target_columns(data)
            for name in data.attributes:
                scores |= attribute_scores(f"{prefix}probe/{name}", fit, candidates | trained, places[name], **drawn)
            if full and not fit.small and (left_out := without & set(self.large)):
                scores[f"{prefix}probe/left_out"] = len(left_out)
            if full and self.cache is not None:
                scores |= self._against_spectra(data, scores)
            if model.adversary.disentangled:
                columns = list(places.values())
                kept = [column for i in model.adversary.entangled for column in columns[i]]
                lost = {name: places[name] for name in (list(places)[i] for i in model.adversary.disentangled)}
                floor_of = self._kept_floor(data, prefix)
                scores |= excess_scores(
                    prefix, fit, candidates | trained, kept, lost, self.bootstrap, self.seed, floor_of
                )
        return {key: float(value) for key, value in scores.items() if np.isfinite(value)}

    def _cross_fit(
        self, seen: Measured, scored: Measured, spare: Measured | None, without: Container[str] = ()
    ) -> CrossFit:
        """The stars, with the probes for so many of them but for some."""
        unseen = len(scored) + (0 if spare is None else len(spare))
        small = unseen + len(seen) < self.small_below
        seen = self._drawn(seen, self.max_stars if small else min(self.max_stars or unseen, unseen))
        if self.max_stars is not None:
            scored, spare = self._drawn(scored, self.max_stars), None
        large = {name: probe for name, probe in self.large.items() if name not in without}
        return CrossFit(self.small if small else large, seen, scored, spare, small=small)

    def _drawn(self, stars: Measured, n: int | None) -> Measured:
        if n is None or n >= len(stars):
            return stars
        return stars[np.sort(np.random.default_rng(self.seed).permutation(len(stars))[:n])]

    def _against_spectra(self, data: "SpectraDataModule", scores: Mapping[str, float]) -> dict[str, float]:
        reference = self._reference(data)
        found = {f"reference/{name}/balanced_accuracy": reference[name] for name in data.attributes}
        for label in data.labels:
            found[f"reference/{label}/r2"] = reference[label]
            lost = share_lost(scores[f"probe/{label}/r2"], reference[label])
            if lost is not None:
                found |= {f"disentanglement/{label}": lost, f"retention/{label}": 1 - lost}
        return found

    def _reference(self, data: "SpectraDataModule") -> dict[str, float]:
        """R2 of each label from the raw spectra by the same probes, once for each (survey, split, probes)."""
        assert self.cache is not None

        path = self.cache / "baselines" / f"probes-{self._key(data)}.json"
        probed = None if path.exists() else self._probed_spectra(data, path)

        def make() -> dict[str, float]:
            fit, candidates = probed or self._probed_spectra(data, path)
            return spectra_scores(fit, candidates, data)

        return cached(path, make)

    def _key(self, data: "SpectraDataModule", *facts: Any) -> str:
        """Of what these probes find on some stars."""
        suites = [settings(suite) for suite in (self.large, self.small)]
        return cache_key(data.fingerprint, suites, self.small_below, self.max_stars, self.seed, *facts)

    def _kept_floor(self, data: "SpectraDataModule", prefix: str) -> FloorOf:
        """:func:`~spectangle.evaluation.leakage.population_floor` by all probes and with a memory: all runs of a sweep
        with the same seed, kept and lost labels ask for the same, and share the work where they ask at the same time.
        """

        def floor_of(fit: CrossFit, entangled: Sequence[int], disentangled: Sequence[int], seed: int) -> Floor:
            fit = fit.asking(self.small if fit.small else self.large)
            if self.cache is None or not entangled:
                return population_floor(fit, entangled, disentangled, seed)

            def read_by(name: str) -> Predictions:
                return floor_predictions(fit.asking({name: fit.probes[name]}), entangled, disentangled)

            def gained() -> dict[str, list[float]]:
                return {"gains": list(floor_gains(fit, entangled, disentangled, seed))}

            path = self.cache / "floors" / f"{self._key(data, prefix, list(entangled), list(disentangled))}.json"
            gains = Wanted(path.with_suffix(".gains.json"), gained)
            *parts, gain = cached_each([*_by_probe(path, fit.probes, read_by), gains])
            return Floor(_joined(parts, (len(fit.scored), len(disentangled))), gain["gains"])

        return floor_of

    def _probed_spectra(self, data: "SpectraDataModule", path: Path) -> tuple[CrossFit, Predictions]:
        """Stars and what the probes read of their raw spectra. Runs of a sweep that end their training together share
        the work, probe by probe, in files beside that of the scores.
        """
        from sklearn.decomposition import PCA

        def stars(features: Callable[[np.ndarray], np.ndarray]) -> CrossFit:
            seen, scored, spare = (
                measured(part, features(part.flux.numpy()), data) for part in (data.train, data.test, data.validation)
            )
            return self._cross_fit(seen, scored, spare)

        @cache
        def components() -> CrossFit:
            """Made by who fits some of the probes, not by who waits for others."""
            spectra = data.train.flux.numpy()
            pca = PCA(min(COMPONENTS, *spectra.shape), svd_solver="randomized", random_state=0).fit(spectra)
            return stars(pca.transform)

        fit = stars(lambda spectra: spectra[:, :0])

        def read_by(name: str) -> Predictions:
            log.info("probing the raw spectra once for this survey: %s ...", name)
            return components().asking({name: fit.probes[name]}).predictions(latent_of, labels_of)

        return fit, _joined(cached_each(_by_probe(path, fit.probes, read_by)), fit.scored.labels.shape)


def _by_probe(path: Path, probes: Iterable[str], read_by: Callable[[str], Predictions]) -> list[Wanted]:
    """What each probe reads as a part of a work that processes share: a file beside ``path``."""

    def make(name: str) -> dict[str, list[float]]:
        return {key: values.ravel().tolist() for key, values in read_by(name).items()}

    files = {name: path.with_name(f"{path.stem}-{quote(name, safe='')}.json") for name in probes}
    return [Wanted(file, partial(make, name)) for name, file in files.items()]


def _joined(parts: Iterable[Mapping[str, list[float]]], shape: tuple[int, ...]) -> Predictions:
    """The parts together, in the order of :meth:`CrossFit.predictions`: first by unseen stars alone."""
    found = {key: values for part in parts for key, values in part.items()}
    return {key: np.array(found[key]).reshape(shape) for key in sorted(found, key=lambda key: "/" in key)}
