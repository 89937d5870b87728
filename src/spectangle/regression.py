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
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spectangle.caching import cache_key, kept, settings
from spectangle.errors import SpectangleError
from spectangle.metrics import label_metrics
from spectangle.outputs import whole_file

if TYPE_CHECKING:
    from spectangle.data import SpectraDataModule
    from spectangle.model import DisentanglingAutoencoder

__all__ = ["DownstreamRegressor", "TorchMLPRegressor", "best_model", "load_regressor", "ridge_regressor", "sklearn_regressor", "torch_regressor"]

# the optimiser that scikit-learn keeps in a fitted MLPRegressor holds numbers only
TRUSTED = ["spectangle.regression.TorchMLPRegressor", "sklearn.neural_network._stochastic_optimizers.AdamOptimizer"]


def sklearn_regressor(
    hidden: Sequence[int] = (200, 100), max_iter: int = 200, patience: int = 10, alpha: float = 1e-4, early_stopping: bool = True, seed: int = 0
) -> BaseEstimator:
    """Build the paper's regressor: scikit-learn's network with two hidden layers, all labels at once (section 3.3).

    Inputs and labels are standardised; 10 % of the fitting stars decide when to stop, or the training loss if ``early_stopping`` is off.
    """
    options: dict[str, Any] = {"alpha": alpha, "max_iter": max_iter, "n_iter_no_change": patience, "random_state": seed}
    network = MLPRegressor(hidden_layer_sizes=tuple(hidden), early_stopping=early_stopping, **options)
    return _standardised(network)


def torch_regressor(
    hidden: Sequence[int] = (200, 100), max_iter: int = 200, patience: int = 10, alpha: float = 1e-4, seed: int = 0, batch_size: int = 200
) -> BaseEstimator:
    """Build the same network with the same stopping rule, trained in torch: faster on many inputs or on a GPU."""
    return _standardised(TorchMLPRegressor(tuple(hidden), alpha, max_iter, patience, batch_size, seed))


def ridge_regressor() -> BaseEstimator:
    """Build ridge regression, one penalty for each label by leave-one-out cross-validation: hard to beat on the spectra of few stars.

    Inputs are centred, not standardised: a pixel counts by what happens in it.
    """
    ridge = RidgeCV(np.logspace(-3, 3, 19), alpha_per_target=True)
    return TransformedTargetRegressor(make_pipeline(StandardScaler(with_std=False), ridge), transformer=StandardScaler(), check_inverse=False)


def _standardised(network: BaseEstimator) -> BaseEstimator:
    return TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler(), check_inverse=False)


class TorchMLPRegressor(RegressorMixin, BaseEstimator):
    r"""scikit-learn's ``MLPRegressor(early_stopping=True)``, trained in torch.

    Adam (rate 1e-3), half the squared error plus :math:`\alpha \lVert w \rVert^2 / 2` over the batch, Glorot-uniform
    weights, stop when :math:`R^2` on a held-out tenth has not improved by 1e-4 for ``patience`` epochs, keep the best weights.

    Arguments:
        hidden: Widths of the hidden layers.
        alpha: Weight of the L2 penalty.
        max_iter: Epochs at most.
        patience: Epochs without improvement before it stops.
        batch_size: Stars per batch.
        seed: Seed of weights, held-out stars and order.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (200, 100),
        alpha: float = 1e-4,
        max_iter: int = 200,
        patience: int = 10,
        batch_size: int = 200,
        seed: int = 0,
    ):
        self.hidden, self.alpha, self.max_iter = hidden, alpha, max_iter
        self.patience, self.batch_size, self.seed = patience, batch_size, seed

    @torch.inference_mode(False)  # it may be called while Lightning validates
    @torch.enable_grad()
    def fit(self, X: np.ndarray, y: np.ndarray) -> "TorchMLPRegressor":
        """Fit to X [N, F] and y [N, K]."""
        generator = torch.Generator().manual_seed(self.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        y = y.reshape(len(y), -1)
        order = torch.randperm(len(X), generator=generator)
        held, fitted = order[: max(1, len(X) // 10)], order[max(1, len(X) // 10) :]
        inputs, labels = (torch.as_tensor(np.asarray(a, np.float32), device=device) for a in (X, y))
        weights = self._initialise([X.shape[1], *self.hidden, y.shape[1]], generator, device)
        optimizer = torch.optim.Adam([p for layer in weights for p in layer], lr=1e-3, fused=True)
        best_score, best, waited = -np.inf, weights, 0
        for epoch in range(1, self.max_iter + 1):
            self.n_iter_ = epoch
            self._epoch(inputs, labels, fitted[torch.randperm(len(fitted), generator=generator)].to(device), weights, optimizer)
            score = self._score(inputs[held.to(device)], labels[held.to(device)], weights)
            if not np.isfinite(score):
                raise SpectangleError("The downstream regressor diverged: its inputs are not finite or too large.")
            waited = 0 if score > best_score + 1e-4 else waited + 1
            if score > best_score:
                best_score, best = score, [(w.detach().clone(), b.detach().clone()) for w, b in weights]
            if waited > self.patience:
                break
        self.coefs_ = [w.detach().cpu().numpy() for w, _ in best]
        self.intercepts_ = [b.detach().cpu().numpy() for _, b in best]
        self.best_validation_score_ = best_score
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        h = np.asarray(X, np.float32)
        for layer, (w, b) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            h = h @ w + b
            if layer < len(self.coefs_) - 1:
                np.maximum(h, 0, out=h)
        return h

    def _initialise(self, sizes: Sequence[int], generator: torch.Generator, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        def uniform(*shape: int, bound: float) -> torch.Tensor:
            return ((2 * torch.rand(*shape, generator=generator) - 1) * bound).to(device).requires_grad_()

        bounds = [np.sqrt(6 / (i + o)) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        return [(uniform(i, o, bound=b), uniform(o, bound=b)) for i, o, b in zip(sizes[:-1], sizes[1:], bounds, strict=True)]

    def _epoch(self, inputs: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, weights: list, optimizer: torch.optim.Optimizer) -> None:
        for batch in rows.split(self.batch_size):
            # summed over labels, as scikit-learn does
            loss = 0.5 * (_forward(inputs[batch], weights) - labels[batch]).square().sum(1).mean()
            loss = loss + 0.5 * self.alpha * sum(w.square().sum() for w, _ in weights) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def _score(self, inputs: torch.Tensor, labels: torch.Tensor, weights: list) -> float:
        error = (_forward(inputs, weights) - labels).square().sum(0)
        return float((1 - error / (labels - labels.mean(0)).square().sum(0)).mean())


def _forward(h: torch.Tensor, weights: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    for layer, (w, b) in enumerate(weights):
        h = torch.addmm(b, h, w)
        if layer < len(weights) - 1:
            h = torch.relu(h)
    return h


def load_regressor(path: str | Path) -> BaseEstimator:
    """Load a fitted regressor; a file that holds anything but scikit-learn's and our own types is refused."""
    import skops.io

    unknown = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED)
    if unknown:
        raise SpectangleError(f"{path} holds the types {', '.join(sorted(unknown))}, which are not known to be safe; fit the regressor again.")
    return skops.io.load(path, trusted=TRUSTED)


def best_model(trainer: L.Trainer, model: "DisentanglingAutoencoder") -> "DisentanglingAutoencoder":
    """The model of the best checkpoint, or the model as it is where no checkpoint was written."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    path = Path(folder or "") / "best.ckpt"  # not where the folder was when it was written: it may have been moved since
    return type(model).load_from_checkpoint(path, map_location=model.device, weights_only=True).eval() if folder and path.is_file() else model


def save_regressor(regressor: BaseEstimator, path: Path) -> None:
    """Save a fitted regressor beside its name, then rename."""
    import skops.io

    with whole_file(path) as part:
        skops.io.dump(regressor, part)


class DownstreamRegressor(L.Callback):
    """Fit the regressor on the latents of the best checkpoint after training, and score it on test stars.

    The baseline on raw spectra is fitted once for each (survey, split, regressor) and cached. ``test/kept_mae`` is what a latent that
    keeps some labels costs them: MAE from the latent over MAE from the spectra, mean over the entangled labels.

    Arguments:
        regressor: Unfitted scikit-learn regressor.
        folder: Run folder, or None to save nothing.
        cache: Folder of cached baselines, or None to leave the baseline out.
        every_n_epochs: Also score validation stars (``val/latent/<label>/mae``, ``val/kept_mae``) every so many epochs; 0 = never.
    """

    def __init__(self, regressor: BaseEstimator, folder: str | None = None, cache: str | None = None, every_n_epochs: int = 0):
        self.regressor, self.every_n_epochs = regressor, every_n_epochs
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
        fitted = self._fit(pl_module.embed_stars(data.train), data.train.labels.numpy())
        predicted = fitted.predict(pl_module.embed_stars(data.validation))
        scores = label_metrics("val/latent", data.labels, predicted, data.validation.labels.numpy())
        if self.cache is not None:
            scores |= _kept_mae("val", scores | self._baseline(data), [data.labels[i] for i in pl_module.adversary.kept])
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scores.items()})
        for logger in trainer.loggers:
            logger.log_metrics(scores | {"epoch": trainer.current_epoch}, step=trainer.global_step)

    def score(self, model: "DisentanglingAutoencoder", data: "SpectraDataModule") -> dict[str, float]:
        """Fit on training stars, score test stars: ``test/latent/<label>/<metric>`` and the baseline ``test/spectra/...``."""
        start = time.perf_counter()
        fitted = self.fitted = self._fit(model.embed_stars(data.train), data.train.labels.numpy())
        seconds = time.perf_counter() - start
        if self.folder is not None:
            save_regressor(fitted, self.folder / "regressors" / "latent.skops")
        catalogue = data.test.labels.numpy()
        predicted = fitted.predict(model.embed_stars(data.test))
        self.metrics = label_metrics("test/latent", data.labels, predicted, catalogue) | {"time/regressor/latent": seconds}
        if self.cache is not None:
            self.metrics |= self._baseline(data)
            self.metrics |= _kept_mae("test", self.metrics, [data.labels[i] for i in model.adversary.kept])
        return self.metrics

    def _fit(self, features: np.ndarray, labels: np.ndarray) -> Any:
        # batches of 200 are too small for several BLAS threads: they wait for each other longer than they compute
        with threadpool_limits(1, user_api="blas"):
            return clone(self.regressor).fit(features, labels)  # pyright: ignore

    def _baseline(self, data: "SpectraDataModule") -> dict[str, float]:
        """The same regressor on the spectra themselves, from the cache if it is there."""
        assert self.cache is not None
        key = cache_key(data.fingerprint, settings(self.regressor), "validation and test stars")
        stored, fitted_path = self.cache / "baselines" / f"{key}.json", self.cache / "baselines" / f"{key}.skops"
        fitted: list[Any] = []

        def make() -> dict[str, float]:
            start = time.perf_counter()
            fitted.append(self._fit(data.train.flux.numpy(), data.train.labels.numpy()))
            metrics = {"time/regressor/spectra": time.perf_counter() - start}
            for prefix, stars in (("val", data.validation), ("test", data.test)):
                metrics |= label_metrics(f"{prefix}/spectra", data.labels, fitted[0].predict(stars.flux.numpy()), stars.labels.numpy())
            with suppress(OSError):  # a cache that cannot be written
                save_regressor(fitted[0], fitted_path)
            return metrics

        metrics = kept(stored, make, beside=fitted_path)
        if self.folder is not None:
            with whole_file(self.folder / "regressors" / "spectra.skops") as part:
                _ = save_regressor(fitted[0], part) if fitted else shutil.copyfile(fitted_path, part)
        return metrics


def _kept_mae(prefix: str, metrics: Mapping[str, float], kept: Sequence[str]) -> dict[str, float]:
    """MAE of the entangled labels from the latent, that from the raw spectra being 1, on the stars that ``prefix`` names."""
    ratios = [metrics[f"{prefix}/latent/{name}/mae"] / metrics[f"{prefix}/spectra/{name}/mae"] for name in kept]
    return {f"{prefix}/kept_mae": float(np.mean(ratios))} if ratios else {}
