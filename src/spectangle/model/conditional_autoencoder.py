"""The networks of the model, and what a trained one is asked for: latents of spectra, spectra of latents.

Shapes: B batch, N stars, P pixels, K labels, A attributes, Z latent.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.model.label_estimator import LabelEstimator, ridge_filled
from spectangle.model.networks import Decoder, Encoder, NoisyChannel
from spectangle.model.projection import Projection
from spectangle.model.scaling import FluxScaler, LabelScaler
from spectangle.survey.star_draws import star_normal

if TYPE_CHECKING:
    from spectangle.data.stars import Stars

__all__ = ["ConditionalAutoencoder"]


class ConditionalAutoencoder(L.LightningModule):
    """Encoder and decoder of stellar spectra, the latter of which may be told labels; both work in the units of the
    survey. How they learn is the business of who inherits from it.

    Arguments:
        stochastic: Whether the latent is a noisy sample.

    The others are those of :class:`~spectangle.model.autoencoder.DisentanglingAutoencoder`.

    Raises:
        SpectangleError: An option is unknown.
    """

    def __init__(
        self,
        n_pixels: int,
        labels: Sequence[str],
        incomplete: Sequence[str],
        attributes: Mapping[str, int] | None,
        latent: int,
        hidden: Sequence[int],
        conditioning: str,
        pls_components: int,
        principal_components: int,
        noise_level: bool,
        latent_activation: str,
        latent_norm: str,
        stochastic: bool,
        batch_norm: bool,
        dropout: float,
        flux_scaling: str,
    ):
        super().__init__()
        if conditioning not in ("observed", "synthetic", "none"):
            raise SpectangleError(f"model.conditioning is '{conditioning}'; it must be observed, synthetic or none.")
        self.labels = tuple(labels)
        self.conditional_encoder = conditioning == "synthetic"
        self.flux_scaler = FluxScaler(n_pixels, flux_scaling)
        self.label_scaler = LabelScaler(labels, incomplete, attributes)
        n_told = self.label_scaler.n_outputs
        given = n_told if self.conditional_encoder else 0
        projection = None
        if pls_components + principal_components > 0:
            projection = Projection(n_pixels, pls_components, principal_components, given, noise_level)
        self.encoder = Encoder(
            n_pixels + given, hidden, latent, latent_activation, latent_norm, batch_norm, dropout, projection
        )
        self.decoder = Decoder(latent, 0 if conditioning == "none" else n_told, hidden, n_pixels, batch_norm)
        self.channel = NoisyChannel(latent) if stochastic else None
        self.estimator = LabelEstimator(n_pixels, len(incomplete)) if incomplete else None

    def fit_scalers(self, flux: Tensor, labels: Tensor) -> Tensor:
        """Fit scalers and components to training flux [N, P] and labels and codes [N, K + A], NaN where one is missing;
        return what the decoder will be told, with the labels that it is to be told filled in.
        """
        self.flux_scaler.fit(flux)
        self.label_scaler.fit(labels)
        x = self.flux_scaler(flux)
        told = self.told(x, labels)
        if self.encoder.projection is not None:
            self.encoder.projection.fit(x, told)
        return told

    def told(self, x: Tensor, labels: Tensor) -> Tensor:
        """What the decoder is told of training stars, with the labels that it is to be told filled in, for scaled flux
        [N, P] and labels and codes [N, K + A], NaN where one is missing.
        """
        return self.label_scaler(ridge_filled(x, labels, self.label_scaler.incomplete))

    def encode(self, flux: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Latent [B, Z] of spectra [B, P] in flux units; labels [B, K] in their units if the encoder is conditional.

        ``noise`` [B, Z], standard normal, is the draw of a stochastic latent; without it, or for a deterministic
        latent, the mean.
        """
        z = self._encode(self.flux_scaler(flux), None if labels is None else self.label_scaler(labels))
        return self.sample(z, noise)

    def sample(self, mean: Tensor, noise: Tensor | None) -> Tensor:
        """Latents [B, Z] of means [B, Z] with standard normal noise [B, Z]; the means, if the latent is deterministic
        or there is none.
        """
        return mean if self.channel is None or noise is None else self.channel(mean, noise.to(mean))

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Flux [B, P] of latents [B, Z] and labels [B, K] in their units, NaN where an incomplete one is missing."""
        return self.flux_scaler.inverse(self.decoder(z, self.label_scaler(labels)))

    def draws(self, source_id: np.ndarray | None, n: int, number: int = 0) -> Tensor | None:
        """The fixed draws [n, Z] of n stars, hashed from their source_id (1 to n without) and the model's salt; None
        for a deterministic latent.

        The latent that is released is this sample: its mean still knows what the noise hides. Other ``number`` than 0
        are further draws, which are for fitting and are never released.
        """
        if self.channel is None:
            return None
        ids = np.arange(1, n + 1) if source_id is None else source_id
        return torch.from_numpy(star_normal(ids, len(self.channel.log_sigma), seed=int(self.channel.salt) + number))

    def embed(
        self,
        flux: Tensor,
        labels: Tensor | None = None,
        source_id: np.ndarray | None = None,
        batch_size: int = 4096,
    ) -> np.ndarray:
        """Latents [N, Z] of any number of spectra [N, P], in evaluation mode and without gradients: of a stochastic
        latent, the one sample that belongs to each star.
        """
        return self._embed(flux, labels, source_id, [0], batch_size)[0]

    def embed_stars(self, stars: "Stars") -> np.ndarray:
        """Latents [N, Z] of stars of a data module."""
        return self.embed_draws(stars, 1)[0]

    def embed_draws(self, stars: "Stars", count: int) -> list[np.ndarray]:
        """The same in some draws, the first of which is the one that is released; a deterministic latent has one."""
        draws = range(1 if self.channel is None else count)
        return self._embed(stars.flux, stars.targets, stars.source_id, draws)

    @torch.no_grad()
    def _embed(
        self,
        flux: Tensor,
        labels: Tensor | None,
        source_id: np.ndarray | None,
        draws: Sequence[int],
        batch_size: int = 4096,
    ) -> list[np.ndarray]:
        given = repeat(None) if labels is None or not self.conditional_encoder else labels.split(batch_size)
        noises = [self.draws(source_id, len(flux), draw) for draw in draws]
        found: list[list[Tensor]] = [[] for _ in draws]
        with self._evaluating():
            for i, (x, y) in enumerate(zip(flux.split(batch_size), given, strict=False)):
                mean = self.encode(x.to(self.device), None if y is None else y.to(self.device))
                for z, noise in zip(found, noises, strict=True):
                    drawn = None if noise is None else noise[i * batch_size :][: len(x)].to(self.device)
                    z.append(self.sample(mean, drawn))
        return [torch.cat(z).cpu().float().numpy() for z in found]

    def _told(self, labels: Tensor, x: Tensor) -> Tensor:
        """What the decoder is told of the labels [B, K]: see :class:`~spectangle.model.scaling.LabelScaler`."""
        if self.estimator is None:
            return self.label_scaler(labels)
        with torch.no_grad():
            return self.label_scaler(labels, self.estimator(x))

    def _encode(self, x: Tensor, y: Tensor | None) -> Tensor:
        if not self.conditional_encoder:
            return self.encoder(x)
        if y is None:
            raise SpectangleError(
                "This model was trained with model.conditioning=synthetic: its encoder needs the labels too."
            )
        return self.encoder(torch.cat([x, y], dim=1))

    @contextmanager
    def _evaluating(self):
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)
