"""What one pass over spectra reads: labels, latent, distance from the training stars, quality of the reconstruction.

Shapes: n stars, P pixels, K labels, Z latent, M models of an ensemble.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectangle.inference.calibration import Calibration
from spectangle.inference.misfit import estimated_noise
from spectangle.inference.reading import Reading, join
from spectangle.inference.trained_networks import TrainedNetworks

__all__ = ["read_latents", "read_spectra"]


@torch.inference_mode()
def read_spectra(
    models: Sequence[TrainedNetworks],
    flux: np.ndarray,
    flux_error: np.ndarray | None,
    source_id: np.ndarray | None,
    batch_size: int = 1024,
) -> Reading:
    """Read spectra [n, P] on the models' own grid; NaN = masked pixel.

    Masked pixels get the training mean before the encoder sees them, as in training, and do not count in chi2 and
    misfit. Without errors, chi2 is in units of each pixel's residual over validation stars, and the misfit's noise is
    estimated. A star without a usable pixel reads NaN.

    Arguments:
        models: One model, or an ensemble that reads the same stars.
        flux, flux_error: Spectra and their errors [n, P], errors or None.
        source_id: Whose spectra they are [n]: the draw of a stochastic latent goes with the star; None numbers them
            from 1.
        batch_size: Stars at a time: few enough to stay in the processor's cache.
    """
    draws = [model.network.draws(source_id, len(flux)) for model in models]
    batches = []
    for start in range(0, len(flux), batch_size):
        rows = slice(start, start + batch_size)
        noises = [None if noise is None else noise[rows] for noise in draws]
        batches.append(
            _read_batch(models, _tensor(flux[rows]), None if flux_error is None else _tensor(flux_error[rows]), noises)
        )
    return join(batches)


@torch.inference_mode()
def read_latents(
    model: TrainedNetworks, flux: np.ndarray, source_id: np.ndarray | None, batch_size: int = 1024
) -> np.ndarray:
    """Latents [n, Z] that :func:`read_spectra` reads of spectra [n, P], without what it compares them with.

    Arguments:
        model, flux, source_id, batch_size: As there.
    """
    noise = model.network.draws(source_id, len(flux))
    latents = []
    for start in range(0, len(flux), batch_size):
        rows = slice(start, start + batch_size)
        batch = _tensor(flux[rows])
        bad = torch.from_numpy(np.flatnonzero(~np.isfinite(batch.numpy())))
        blank = torch.bincount(bad // batch.shape[1], minlength=len(batch)) == batch.shape[1]
        z = model.fast.latent(_fill(batch, bad, model.fill), None if noise is None else noise[rows])
        latents.append(torch.where(blank[:, None], torch.nan, z).numpy())
    return np.concatenate(latents)


def _read_batch(
    models: Sequence[TrainedNetworks], flux: Tensor, error: Tensor | None, noises: Sequence[Tensor | None]
) -> Reading:
    weight = _pixel_weight(models[0], flux) if error is None else error.reciprocal()
    bad = _bad_pixels(flux, error, weight)
    filled = _fill(flux, bad, models[0].fill)
    if error is not None:
        weight.view(-1)[bad] = 0.0
    n_usable = flux.shape[1] - torch.bincount(bad // flux.shape[1], minlength=len(flux))
    count = n_usable.clamp(min=1)
    # einsum multiplies and sums in one pass
    snr = (
        torch.full((len(flux),), torch.nan)
        if error is None
        else torch.from_numpy(np.einsum("bp,bp->b", filled.numpy(), weight.numpy())) / count
    )
    level = None if error is None else torch.linalg.vector_norm(weight, dim=1) / count.sqrt()
    passes = [
        _pass(model, filled, bad, weight, level, count, noise) for model, noise in zip(models, noises, strict=True)
    ]
    labels = torch.stack([labels for labels, *_ in passes])
    spread = labels.std(0, correction=0) if len(models) > 1 else torch.zeros_like(labels[0])
    square, chi2, distance, misfit, level = (torch.stack([one[i] for one in passes]).mean(0) for i in range(2, 7))
    results = (
        labels.mean(0),
        spread,
        passes[0][1],
        distance,
        (square / count).sqrt(),
        chi2 / count,
        misfit,
        level,
        snr,
    )
    blank = n_usable == 0
    arrays = [torch.where(blank.view(-1, *[1] * (r.dim() - 1)), torch.nan, r).numpy() for r in results]
    return Reading(*arrays, masked=(1 - n_usable / flux.shape[1]).numpy())  # pyright: ignore[reportCallIssue]


def _fill(flux: Tensor, bad: Tensor, fill: Tensor) -> Tensor:
    """Put the training mean in place of masked pixels; spectra without any are not copied."""
    if not len(bad):
        return flux
    filled = flux.clone()
    filled.view(-1)[bad] = fill[bad % flux.shape[1]]
    return filled


def _pass(
    model: TrainedNetworks,
    filled: Tensor,
    bad: Tensor,
    weight: Tensor,
    level: Tensor | None,
    count: Tensor,
    noise: Tensor | None,
) -> tuple[Tensor, ...]:
    """Labels, latent, sums of squared residuals in flux units and in units of the error, distance, misfit, S/N."""
    labels, z, residual = model.fast(filled, noise)
    residual.view(-1)[bad] = 0.0
    square, known = torch.linalg.vector_norm(residual, dim=1).square(), model.calibration
    if known is None:
        nothing = torch.full_like(square, torch.nan)
        return labels, z, square, _weigh(residual, weight), nothing, nothing[:, None].expand(-1, 2), nothing
    if level is None or not known.known_errors:  # none came, or the survey has none to compare them with
        misfit, level = _misfit_without_errors(known, residual * known.pixel_weight, count)
        chi2 = _weigh(residual, weight)
    else:
        chi2 = _weigh(residual, weight)
        misfit = known.misfits[0](residual, chi2, level, count)
    return labels, z, square, chi2, known.distance(z), misfit, level


def _weigh(residual: Tensor, weight: Tensor) -> Tensor:
    """Put residuals [B, P] into units of their errors, in place, and sum their squares [B]."""
    return torch.linalg.vector_norm(residual.mul_(weight), dim=1).square()


def _misfit_without_errors(known: Calibration, residual: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Misfit [B, 2] and S/N [B] from residuals [B, P] in units of those of validation stars, which tell the noise."""
    sigma = estimated_noise(residual, count)
    residual = residual.div_(sigma[:, None])
    level = known.pixel_weight.square().mean().sqrt() / sigma
    return known.misfits[1](residual, torch.linalg.vector_norm(residual, dim=1).square(), level, count), level


def _bad_pixels(flux: Tensor, error: Tensor | None, weight: Tensor) -> Tensor:
    """Flat indices of pixels without a finite flux, or without a positive finite error.

    They are few, so indices cost less than masks: numpy compares a pixel in a third of torch's time.
    """
    if error is None:
        return torch.from_numpy(np.flatnonzero(~np.isfinite(flux.numpy())))
    low, high = error.aminmax()
    if low > 0 and high < torch.inf:  # no error is wrong (NaN would be): only the flux can be
        return torch.from_numpy(np.flatnonzero(~np.isfinite(flux.numpy())))
    with np.errstate(invalid="ignore"):
        good = np.isfinite(flux.numpy()) & (error.numpy() > 0) & (weight.numpy() > 0)
    return torch.from_numpy(np.flatnonzero(~good))


def _pixel_weight(model: TrainedNetworks, flux: Tensor) -> Tensor:
    """One over each pixel's residual over validation stars [P]: what stands for errors that did not come."""
    return model.calibration.pixel_weight if model.calibration else torch.ones(flux.shape[1])


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
