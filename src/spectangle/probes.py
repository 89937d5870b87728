r"""Probes: independent regressors that measure what is left in the latent, whatever the adversary says.

A discriminator at chance does not mean that a label is gone: the encoder may hide it from that discriminator. A probe
is fitted on the frozen latent of training stars and scored on other stars; leakage is what the strongest probe finds.

Shapes: N stars, F features, K labels, D probed labels.
"""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from rich.markup import escape
from rich.table import Table
from scipy.linalg import LinAlgWarning
from sklearn.base import clone
from sklearn.multioutput import MultiOutputRegressor
from sklearn.preprocessing import StandardScaler

from spectangle.caching import cache_key, kept, settings
from spectangle.console import render
from spectangle.metrics import r2
from spectangle.regression import best_model

if TYPE_CHECKING:
    from spectangle.data import SpectraDataModule, Stars
    from spectangle.model import DisentanglingAutoencoder

__all__ = ["Probes", "bootstrap_r2", "erasure", "probe_predictions", "probe_table"]

log = logging.getLogger(__name__)

REFERENCE_STARS = 20000  # boosting on 800 pixels is slow, and a reference need not be the strongest probe that there is


def probe_predictions(probes: Mapping[str, Any], features: np.ndarray, labels: np.ndarray, new_features: np.ndarray) -> dict[str, np.ndarray]:
    """Fit each probe on features [N, F] and labels [N, D], both standardised; predict labels [M, D] of new features [M, F]."""
    scale_x, scale_y = StandardScaler().fit(features), StandardScaler().fit(labels)
    x, y, new_x = (np.asarray(a) for a in (scale_x.transform(features), scale_y.transform(labels), scale_x.transform(new_features)))
    return {name: scale_y.inverse_transform(_fitted(probe, x, y).predict(new_x).reshape(len(new_x), -1)) for name, probe in probes.items()}


def _fitted(probe: Any, x: np.ndarray, y: np.ndarray) -> Any:
    probe = clone(probe)
    if not probe.__sklearn_tags__().target_tags.multi_output:
        probe = MultiOutputRegressor(probe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)  # dead or erased directions leave a singular covariance; ridge copes
        return probe.fit(x, y)


def bootstrap_r2(predictions: Sequence[np.ndarray], truth: np.ndarray, draws: int = 200, seed: int = 0) -> np.ndarray:
    """R2 of each prediction [N] in resamples of the stars [len(predictions), draws]; the same stars for all, so that
    differences are paired."""
    random = np.random.default_rng(seed)
    n = len(truth)
    weights = random.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)  # how often each star is drawn
    truth = truth.astype(np.float64)
    variance = weights @ truth**2 / n - (weights @ truth / n) ** 2
    errors = np.stack([weights @ (prediction - truth) ** 2 / n for prediction in predictions])
    return 1 - errors / variance


def erasure(r2_latent: float, r2_reference: float) -> float:
    """Fraction of what the reference knows that the latent has lost, (R2_reference - R2_z) / R2_reference in [0, 1]."""
    return float(np.clip((r2_reference - r2_latent) / max(r2_reference, 1e-9), 0, 1))


@dataclass
class Embedded:
    """Latents and labels of the stars that probes are fitted on, z_fit [N, Z] and y_fit [N, K], and of those they are scored on."""

    labels: Sequence[str]
    z_fit: np.ndarray
    y_fit: np.ndarray
    z: np.ndarray
    y: np.ndarray


class Probes(L.Callback):
    r"""Probe the latent of the best checkpoint on test stars after training, and on validation stars during it if asked.

    For each label: ``probe/<label>/<probe>/r2``; ``probe/<label>/r2``, the best of them, with its 95 % bootstrap interval
    ``r2_low``, ``r2_high``; ``probe/<label>/control``, the best probe on permuted labels (about 0); ``erasure/<label>`` and
    ``retention/<label>`` against the same probes on raw spectra (cached; fitted on at most 20,000
    stars). For each disentangled label:
    ``floor/<label>``, R2 from the kept labels alone, and ``excess/<label>``, R2 from (z, kept labels) or from z, whichever is read
    better, minus the floor, with ``excess_low``, ``excess_high``: leakage beyond what the population of stars implies. The largest of
    them is ``largest_excess``.

    Arguments:
        probes: Unfitted scikit-learn regressors by name.
        cache: Folder where the reference on raw spectra is cached; None leaves the reference out.
        max_stars: Fit probes on at most this many training stars, drawn with ``seed``; None = all. Fewer stars find less.
        bootstrap: Resamples of the scored stars.
        every_n_epochs: Also probe validation stars (``val/probe/<label>/r2``) every so many epochs; 0 = never.
        seed: Seed of the drawn stars, the resamples and the permutation.
    """

    def __init__(
        self,
        probes: Mapping[str, Any],
        cache: str | None = None,
        max_stars: int | None = None,
        bootstrap: int = 200,
        every_n_epochs: int = 0,
        seed: int = 0,
    ):
        self.probes = dict(probes)
        self.cache = None if cache is None else Path(cache)
        self.max_stars, self.bootstrap, self.every_n_epochs, self.seed = max_stars, bootstrap, every_n_epochs, seed
        self.metrics: dict[str, float] = {}

    def on_validation_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        """Probe validation stars with the first probe only, early enough for a checkpoint to monitor it."""
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
        self.metrics = self.score(model, data, data.test)
        self.metrics["time/probes"] = time.perf_counter() - start
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics)
        gains = {name: float(trainer.callback_metrics.get(f"val/discriminator_gain/{name}", np.nan)) for name in data.labels}
        log.info("%s", render(probe_table(self.metrics, data.labels, gains)))
        for warning in disagreements(self.metrics, gains, model):
            log.warning("%s", warning)

    def score(
        self, model: "DisentanglingAutoencoder", data: "SpectraDataModule", stars: "Stars", prefix: str = "", full: bool = True
    ) -> dict[str, float]:
        """Fit on training stars, score ``stars``; ``full`` adds reference, control and excess."""
        fit = self._drawn(len(data.train))
        embedded = Embedded(
            data.labels,
            model.embed(data.train.flux[fit], data.train.labels[fit]),
            data.train.labels[fit].numpy(),
            model.embed(stars.flux, stars.labels),
            stars.labels.numpy(),
        )
        predictions = probe_predictions(self.probes, embedded.z_fit, embedded.y_fit, embedded.z)
        scores = self._leakage(prefix, embedded, predictions, control=full)
        if full and self.cache is not None:
            reference = self._reference(data, fit)
            for label in data.labels:
                lost = erasure(scores[f"probe/{label}/r2"], reference[label])
                scores |= {f"reference/{label}/r2": reference[label], f"erasure/{label}": lost, f"retention/{label}": 1 - lost}
        kept, dropped = model.adversary.kept, model.adversary.dropped
        if dropped:
            scores |= self._excess(prefix, embedded, predictions, kept, dropped)
        return scores

    def _drawn(self, n: int) -> np.ndarray:
        rows = np.random.default_rng(self.seed).permutation(n)[: self.max_stars]
        return np.sort(rows)

    def _leakage(self, prefix: str, embedded: Embedded, predictions: Mapping[str, np.ndarray], control: bool) -> dict[str, float]:
        y = embedded.y
        shuffled = embedded.y_fit[np.random.default_rng(self.seed).permutation(len(embedded.y_fit))]
        scores: dict[str, float] = {}
        for i, label in enumerate(embedded.labels):
            path = f"{prefix}probe/{label}"
            each = {name: r2(prediction[:, i], y[:, i]) for name, prediction in predictions.items()}
            best = max(each, key=lambda name: each[name])
            draws = bootstrap_r2([predictions[best][:, i]], y[:, i], self.bootstrap, self.seed)[0]
            scores |= {f"{path}/{name}/r2": value for name, value in each.items()}
            scores |= {f"{path}/r2": each[best], f"{path}/r2_low": np.quantile(draws, 0.025), f"{path}/r2_high": np.quantile(draws, 0.975)}
            if control:
                permuted = probe_predictions({best: self.probes[best]}, embedded.z_fit, shuffled[:, i : i + 1], embedded.z)[best]
                scores[f"{path}/control"] = r2(permuted[:, 0], y[:, i])
        return {key: float(value) for key, value in scores.items()}

    def _excess(
        self, prefix: str, embedded: Embedded, predictions: Mapping[str, np.ndarray], kept: list[int], dropped: list[int]
    ) -> dict[str, float]:
        """Leakage of the dropped labels beyond what the kept labels' catalogue values imply.

        What a probe reads from z alone counts too: a probe with more inputs is not always the stronger one.
        """
        labels, z_fit, y_fit, z, y = embedded.labels, embedded.z_fit, embedded.y_fit, embedded.z, embedded.y
        both = probe_predictions(self.probes, np.c_[z_fit, y_fit[:, kept]], y_fit[:, dropped], np.c_[z, y[:, kept]])
        alone = probe_predictions(self.probes, y_fit[:, kept], y_fit[:, dropped], y[:, kept]) if kept else {}
        nothing = np.broadcast_to(y_fit[:, dropped].mean(0), (len(y), len(dropped)))
        scores = {}
        for j, i in enumerate(dropped):
            with_z = _best([p[:, j] for p in both.values()] + [p[:, i] for p in predictions.values()], y[:, i])
            floor = _best([p[:, j] for p in alone.values()] + [nothing[:, j]], y[:, i])
            draws = bootstrap_r2([with_z, floor], y[:, i], self.bootstrap, self.seed)
            difference = draws[0] - draws[1]
            scores[f"{prefix}floor/{labels[i]}"] = r2(floor, y[:, i])
            scores[f"{prefix}excess/{labels[i]}"] = r2(with_z, y[:, i]) - r2(floor, y[:, i])
            scores[f"{prefix}excess_low/{labels[i]}"] = float(np.quantile(difference, 0.025))
            scores[f"{prefix}excess_high/{labels[i]}"] = float(np.quantile(difference, 0.975))
        scores[f"{prefix}largest_excess"] = max(scores[f"{prefix}excess/{labels[i]}"] for i in dropped)
        return scores

    def _reference(self, data: "SpectraDataModule", fit: np.ndarray) -> dict[str, float]:
        """Best R2 of each label from raw spectra, once for each (survey, split, probes)."""
        assert self.cache is not None
        fit = np.sort(np.random.default_rng(self.seed).permutation(fit)[:REFERENCE_STARS])
        key = cache_key(data.fingerprint, settings(self.probes), len(fit), self.seed)

        def make() -> dict[str, float]:
            log.info("probing the raw spectra once for this survey ...")
            predictions = probe_predictions(self.probes, data.train.flux[fit].numpy(), data.train.labels[fit].numpy(), data.test.flux.numpy())
            y = data.test.labels.numpy()
            return {label: max(r2(p[:, i], y[:, i]) for p in predictions.values()) for i, label in enumerate(data.labels)}

        return kept(self.cache / "baselines" / f"probes-{key}.json", make)


def _best(predictions: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    return max(predictions, key=lambda prediction: r2(prediction, truth))


def disagreements(metrics: Mapping[str, float], gains: Mapping[str, float], model: "DisentanglingAutoencoder") -> list[str]:
    """Sentences for disentangled labels that the adversary takes for gone and a probe still reads."""
    return [
        f"warning: the discriminator of {label} is at chance ({gains[label]:+.2f} nats), but a probe still reads it: "
        f"R2 {metrics[f'probe/{label}/r2']:.2f}, of which {metrics[f'excess/{label}']:.2f} beyond the population. It is hidden, not removed: "
        "raise adversary.discriminator_steps or its lambda."
        for label in (model.labels[i] for i in model.adversary.dropped)
        if gains[label] < 0.1 and metrics[f"excess/{label}"] > 0.1
    ]


def probe_table(metrics: Mapping[str, float], labels: Sequence[str], gains: Mapping[str, float]) -> Table:
    """What the latent knows of each label: adversary's view, probes' view, floor and excess."""
    table = Table(title="What the latent knows (R2 of the best probe on test stars)", title_justify="left")
    table.add_column("label", no_wrap=True)
    for name in ("discriminator\n[nats]", "best probe\nR2", "95 %", "permuted\nlabels", "raw\nspectra", "erased", "floor", "excess", "95 % "):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for label in labels:
        path = f"probe/{label}"

        def interval(low: str, high: str) -> str:
            return f"{metrics[low]:.2f}..{metrics[high]:.2f}" if low in metrics else ""

        cells = [metrics.get(key) for key in (f"reference/{label}/r2", f"erasure/{label}", f"floor/{label}", f"excess/{label}")]
        table.add_row(
            label,
            f"{gains[label]:+.2f}",
            f"{metrics[f'{path}/r2']:.3f}",
            interval(f"{path}/r2_low", f"{path}/r2_high"),
            f"{metrics[f'{path}/control']:+.3f}" if f"{path}/control" in metrics else "",
            *("" if value is None else f"{value:.3f}" for value in cells),
            interval(f"excess_low/{label}", f"excess_high/{label}"),
        )
    return table
