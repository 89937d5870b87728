"""A trained autoencoder and the regressor on its latent, as one plain object that readers of spectra take.

Shapes: P pixels, K labels.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from spectangle.data.stars import Stars
from spectangle.inference.calibration import Calibration
from spectangle.inference.fast_networks import FastNetworks
from spectangle.inference.readout import Readout
from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["TrainedNetworks"]


@dataclass(frozen=True)
class TrainedNetworks:
    """A trained autoencoder with the regressor that reads labels from its latent.

    Arguments:
        network: The autoencoder, in evaluation mode.
        readout: The regressor.
        identity: Where it comes from: run, commit, survey, versions.
        metrics: Final numbers of the run by metric path.
        calibration: What predictions are compared with; None: labels come without uncertainties.
    """

    network: DisentanglingAutoencoder
    readout: Readout
    identity: dict[str, str]
    metrics: dict[str, float]
    calibration: Calibration | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return self.network.labels

    @property
    def units(self) -> dict[str, str]:
        """Unit of each label."""
        return dict(self.network.hparams["label_units"] or dict.fromkeys(self.labels, ""))

    @property
    def wavelength(self) -> np.ndarray:
        """Vacuum wavelengths [P] in nm."""
        return np.asarray(self.network.hparams["wavelength"], dtype=np.float64)

    @property
    def fill(self) -> Tensor:
        """What masked pixels become [P]: the mean of the training stars."""
        return (
            self.network.flux_scaler.mean if self.calibration is None else torch.from_numpy(self.calibration.pixel_mean)
        )

    @cached_property
    def fast(self) -> FastNetworks:
        """The networks in the form that reads many spectra quickly."""
        return FastNetworks(self.network, self.readout)

    @property
    def lambdas(self) -> dict[str, float]:
        """lambda of each label: above 0 disentangled, below 0 entangled."""
        return dict(zip(self.labels, self.network.adversary.lambdas, strict=False))  # attributes come behind

    @property
    def trained_on(self) -> str:
        """The stars that the model knows, in the words of their survey."""
        return self.identity.get("trained_on", "unknown stars")

    @property
    def disentangled(self) -> list[str]:
        """Labels that the run removed from the latent: what is read of them is no measurement."""
        return [name for name, value in self.lambdas.items() if value > 0]

    @torch.inference_mode()
    def known_labels(self, stars: Stars) -> np.ndarray:
        """Labels [n, K] of the catalogue; what the model reads where it has none."""
        catalogue = stars.labels.numpy()
        if np.isfinite(catalogue).all():
            return catalogue
        read = self.readout(torch.from_numpy(self.network.embed_stars(stars))).numpy()
        return np.where(np.isfinite(catalogue), catalogue, read)

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """The same model, compared with other numbers."""
        return replace(self, calibration=calibration)
