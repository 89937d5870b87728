"""The downstream regressor: read labels from a representation, and score them on test stars.

Shapes: N stars, F features (800 pixels or 25 latents), K labels.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from threadpoolctl import threadpool_limits

from spectangle.caching import Wanted, cache_key, cached_each, settings
from spectangle.evaluation.at_limit import limit_metrics
from spectangle.evaluation.regressors import LabelGroups, save_regressor
from spectangle.files import whole_file
from spectangle.metrics import label_metrics
from spectangle.packs.line import fits_on_gpu

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["DownstreamRegressor", "best_model"]


def best_model(trainer: L.Trainer, model: "DisentanglingAutoencoder") -> "DisentanglingAutoencoder":
    """The model of the best checkpoint of the trainer's first checkpoint callback, or the model as it is where that has
    written none.
    """
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if not path or not Path(path).is_file():
        return model
    return type(model).load_from_checkpoint(path, map_location=model.device, weights_only=True).eval()


class DownstreamRegressor(L.Callback):
    """Fit the regressor on the latents of the best checkpoint after training, and score it on test stars.

    The baseline on raw spectra is fitted once for each (survey, split, regressor) and cached. ``test/entangled_mae`` is
    what a latent that
    keeps some labels costs them: MAE from the latent over MAE from the spectra, mean over the entangled labels.
    ``limit/<label>/mae`` is what the best possible reader of the embedded survey's spectra would have.

    Arguments:
        regressor: Unfitted scikit-learn regressor.
        paper: Another one, scored beside it as ``paper/latent/<label>/mae`` and ``paper/spectra/<label>/mae``: the
            paper's network, for comparison with its tables.
        paper_on_gpu: The same in a form that a GPU fits, which takes its place on latents where networks are fitted on
            one.
        folder: Run folder, or None to save nothing.
        cache: Folder of cached baselines, or None to leave baseline and limit out.
        draws: Of a stochastic latent, how many draws of each training star the regressor is fitted on: a small survey
            teaches the noise of one by heart. Stars that are scored have the one that is released.
        every_n_epochs: Also score validation stars (``val/latent/<label>/mae``, ``val/entangled_mae``) every so many
            epochs; 0 = never.
    """

    def __init__(
        self,
        regressor: BaseEstimator,
        folder: str | None = None,
        cache: str | None = None,
        draws: int = 1,
        every_n_epochs: int = 0,
        paper: BaseEstimator | None = None,
        paper_on_gpu: BaseEstimator | None = None,
    ):
        self.paper = None if paper is None or settings(paper) == settings(regressor) else paper
        self.paper_on_gpu = paper_on_gpu
        self.regressor, self.draws, self.every_n_epochs = regressor, draws, every_n_epochs
        self.folder = None if folder is None else Path(folder)
        self.cache = None if cache is None else Path(cache)
        self.metrics: dict[str, float] = {}
        self.fitted: Any = None

    def on_fit_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        """Score the best checkpoint and log every metric."""
        self.score(best_model(trainer, pl_module), trainer.datamodule)
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics)

    def on_validation_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        """Score validation stars during training, early enough for a checkpoint to monitor it."""
        if trainer.sanity_checking or not self.every_n_epochs or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        data = trainer.datamodule
        fitted = self._fit_latent(self.regressor, pl_module, data, self.draws)
        predicted = fitted.predict(pl_module.embed_stars(data.validation))
        scores = label_metrics("val/latent", data.labels, predicted, data.validation.labels.numpy())
        if self.cache is not None:
            scores |= _entangled_mae("val", scores | self._baseline(data), _entangled(pl_module))
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scores.items()})
        for logger in trainer.loggers:
            logger.log_metrics(scores | {"epoch": trainer.current_epoch}, step=trainer.global_step)

    def score(self, model: "DisentanglingAutoencoder", data: "SpectraDataModule") -> dict[str, float]:
        """Fit on training stars, score test stars: ``test/latent/<label>/<metric>`` and the baseline
        ``test/spectra/...``.
        """
        start = time.perf_counter()
        fitted = self.fitted = self._fit_latent(self.regressor, model, data, self.draws)
        seconds = time.perf_counter() - start
        if self.folder is not None:
            save_regressor(fitted, self.folder / "regressors" / "latent.skops")
        catalogue, latents = data.test.labels.numpy(), model.embed_stars(data.test)
        self.metrics = label_metrics("test/latent", data.labels, fitted.predict(latents), catalogue) | {
            "time/regressor/latent": seconds
        }
        counts = np.isfinite(catalogue).sum(axis=0)
        self.metrics |= {f"test/stars/{name}": float(n) for name, n in zip(data.labels, counts, strict=True)}
        if self.paper is not None:
            paper = self.paper_on_gpu if self.paper_on_gpu is not None and fits_on_gpu() else self.paper
            read = self._fit_latent(paper, model, data).predict(latents)
            self.metrics |= label_metrics("paper/latent", data.labels, read, catalogue)
        if self.cache is not None:
            self.metrics |= self._baseline(data)
            self.metrics |= _entangled_mae("test", self.metrics, _entangled(model))
            self.metrics |= limit_metrics(data)
        return self.metrics

    def _fit_latent(
        self, regressor: BaseEstimator, model: "DisentanglingAutoencoder", data: "SpectraDataModule", draws: int = 1
    ) -> Any:
        latents = model.embed_draws(data.train, draws)
        return _fit(regressor, np.concatenate(latents), data, len(latents))

    def _baseline(self, data: "SpectraDataModule") -> dict[str, float]:
        """The same regressors on the spectra themselves, from the cache if they are there."""
        fitted: dict[Path, Any] = {}
        readers = [self.regressor] if self.paper is None else [self.regressor, self.paper]
        wanted = [self._on_spectra(reader, data, fitted) for reader in readers]
        metrics, *again = cached_each(wanted)
        if self.folder is not None:
            file = wanted[0].path
            with whole_file(self.folder / "regressors" / "spectra.skops") as part:
                _ = save_regressor(fitted[file], part) if file in fitted else shutil.copyfile(wanted[0].beside, part)  # pyright: ignore
        for one in again:
            metrics = metrics | {f"paper/{key[5:]}": value for key, value in one.items() if key.startswith("test/")}
        return metrics

    def _on_spectra(self, regressor: BaseEstimator, data: "SpectraDataModule", fitted: dict[Path, Any]) -> Wanted:
        """Metrics of a regressor on the spectra; one that is fitted for them is put among those that are ``fitted``."""
        assert self.cache is not None
        key = cache_key(data.fingerprint, settings(regressor), "validation and test stars")
        path, beside = (self.cache / "baselines" / f"{key}.{kind}" for kind in ("json", "skops"))

        def make() -> dict[str, float]:
            start = time.perf_counter()
            fitted[path] = own = _fit(regressor, data.train.flux.numpy(), data)
            metrics = {"time/regressor/spectra": time.perf_counter() - start}
            for prefix, stars in (("val", data.validation), ("test", data.test)):
                metrics |= label_metrics(
                    f"{prefix}/spectra", data.labels, own.predict(stars.flux.numpy()), stars.labels.numpy()
                )
            with suppress(OSError):  # a cache that cannot be written
                save_regressor(own, beside)
            return metrics

        return Wanted(path, make, beside)


def _fit(regressor: BaseEstimator, features: np.ndarray, data: "SpectraDataModule", count: int = 1) -> Any:
    """Fit to ``count`` times the training stars, each label by the stars that have it."""
    labels = np.tile(data.train.labels.numpy(), (count, 1))
    weights = None if data.label_weight == "none" else np.tile(data.train.weights.numpy(), (count, 1))
    # batches of 200 are too small for several BLAS threads: they wait for each other longer than they compute
    with threadpool_limits(1, user_api="blas"):
        if weights is None and not data.incomplete:
            return clone(regressor).fit(features, labels)  # pyright: ignore
        return LabelGroups(regressor).fit(features, labels, weights)


def _entangled_mae(prefix: str, metrics: Mapping[str, float], entangled: Sequence[str]) -> dict[str, float]:
    """MAE of the entangled labels from the latent, that from the raw spectra being 1, on the stars that ``prefix``
    names.
    """
    ratios = [metrics[f"{prefix}/latent/{name}/mae"] / metrics[f"{prefix}/spectra/{name}/mae"] for name in entangled]
    return {f"{prefix}/entangled_mae": float(np.mean(ratios))} if ratios else {}


def _entangled(model: "DisentanglingAutoencoder") -> list[str]:
    """The labels that the latent keeps, without attributes: these are not read."""
    return [name for i in model.adversary.entangled if (name := model.targets[i]) in model.labels]
