"""A trained model, ready to use: encode, predict, generate.

Shapes: n stars, P pixels, K labels, Z latent.
"""

from typing import Any

import numpy as np
import torch
from astropy.table import Table

from spectangle.errors import SpectangleError
from spectangle.inference.quality import Limits
from spectangle.inference.read import read_latents, read_spectra
from spectangle.inference.read_chunks import read_chunks
from spectangle.inference.reading import join
from spectangle.inference.spectra_input import array_chunks, arrays_on_grid, check_arrays, star_ids, vacuum_grid
from spectangle.inference.star_table import star_table
from spectangle.inference.trained_networks import TrainedNetworks
from spectangle.survey.given import as_label

__all__ = ["TrainedModel"]


class TrainedModel(TrainedNetworks):
    """What :func:`spectangle.load` gives: a model that reads spectra, and writes them with other labels."""

    def encode(
        self, flux: np.ndarray, wavelength: np.ndarray | None = None, source_id: np.ndarray | None = None
    ) -> np.ndarray:
        """Latents [n, Z] of spectra [n, P] (NaN = masked pixel), given on a grid in nm or on the model's own.

        A stochastic latent is one fixed draw for each ``source_id`` [n] (default: 1 to n), the same whenever that star
        is read.
        """
        flux = self._on_grid(flux, wavelength)
        return read_latents(self, flux, star_ids(source_id, len(flux), "The spectra"))

    def predict(
        self,
        flux: np.ndarray,
        flux_error: np.ndarray | None = None,
        wavelength: np.ndarray | None = None,
        source_id: np.ndarray | None = None,
        coverage: float = 0.6827,
        limits: Limits | None = None,
    ) -> Table:
        """Labels with uncertainties, distance from the training stars and quality flags, as an astropy Table.

        Arguments:
            flux, flux_error: Spectra and errors [n, P]; NaN, masked or a fill value such as -9999 = masked pixel.
            wavelength: Their vacuum grid in nm, or as an astropy Quantity, if it is not the model's own.
            source_id: Identifiers [n] (default: 1 to n); the draw of a stochastic latent belongs to them.
            coverage: Probability that the catalogue's label lies within the uncertainty.
            limits: Of the quality flags.
        """
        flux, flux_error, grid = self._checked(flux, wavelength, flux_error)
        ids = star_ids(source_id, len(flux), "The spectra")
        chunks = array_chunks(ids, flux, flux_error, grid, self.wavelength, "The spectra")
        reading = join(reading for _, reading in read_chunks([self], chunks))
        return star_table(self, reading, ids, flux_error is not None, coverage, limits or Limits())

    @torch.inference_mode()
    def generate(
        self,
        flux: np.ndarray,
        wavelength: np.ndarray | None = None,
        source_id: np.ndarray | None = None,
        **labels: float | np.ndarray,
    ) -> np.ndarray:
        """Spectra [n, P] of the same stars with other labels, ``model.generate(flux, teff=6000)``; the others are as
        read.

        The latent is that of :meth:`encode` with the same ``source_id`` [n] (default: 1 to n).

        Raises:
            SpectangleError: A label is not one of the model's or no number for each spectrum, or the decoder is told
                none.
        """
        self.check_told()
        if unknown := set(labels) - set(self.labels):
            raise SpectangleError(
                f"This model does not know the label {sorted(unknown)[0]}; its labels are {', '.join(self.labels)}."
            )
        flux = self._on_grid(flux, wavelength)
        reading = read_spectra([self], flux, None, star_ids(source_id, len(flux), "The spectra"))
        values = reading.labels.copy()
        for name, value in labels.items():
            values[:, self.labels.index(name)] = self._wanted(name, value, len(flux))
        return self.decode(reading.latent, values)

    @torch.inference_mode()
    def decode(self, latent: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Spectra [n, P] of latents [n, Z] and labels [n, K].

        Raises:
            SpectangleError: The shapes are others.
        """
        width, known = self.network.hparams["latent"], len(self.labels)
        latent_shape, label_shape = np.shape(latent), np.shape(labels)
        n = len(latent) if latent_shape else 0
        if latent_shape != (n, width) or label_shape not in ((n, known), (n, len(self.network.targets))):
            raise SpectangleError(
                f"latent has the shape {latent_shape} and labels {label_shape}; expected are [n, {width}] and "
                f"[n, {known}], a row for each spectrum, with the labels {', '.join(self.labels)}."
            )
        return self.network.decode(
            torch.as_tensor(latent, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.float32)
        ).numpy()

    def check_told(self) -> None:
        """Refuse to change labels that the decoder is not told.

        Raises:
            SpectangleError: It is told none.
        """
        if not self.network.decoder.n_labels:
            raise SpectangleError(
                "The decoder of this model is told no labels (model.conditioning=none, a regular autoencoder), so that "
                "other labels change no spectrum. Train with model.conditioning=observed."
            )

    def _wanted(self, name: str, value: Any, n: int) -> np.ndarray:
        """Values [n] or one value of a label that is asked for."""
        values = as_label(value, self.units[name], name)
        if not np.isfinite(values).all():
            raise SpectangleError(f"{name} has values that are missing or not finite; give a number for each spectrum.")
        if values.shape not in ((), (1,), (n,)):
            raise SpectangleError(
                f"{name} has the shape {values.shape} and there are {n} spectra; give one number, or one for each "
                "spectrum."
            )
        return values

    def _on_grid(self, flux: Any, wavelength: Any) -> np.ndarray:
        """Flux [n, P] on the model's grid."""
        flux, _, grid = self._checked(flux, wavelength, None)
        return arrays_on_grid(flux, None, grid, self.wavelength, "The spectra")[0]

    def _checked(self, flux: Any, wavelength: Any, flux_error: Any) -> tuple[Any, Any, np.ndarray]:
        """Flux and errors [n, Q] with their grid [Q], through the door of spectangle predict's arrays."""
        if self.network.conditional_encoder:
            raise SpectangleError(
                "This model was trained with model.conditioning=synthetic: its encoder needs the labels of a star, so "
                "it cannot read them. "
                "Use model.conditioning=observed, or change labels of a survey that has them with spectangle generate."
            )
        flux, flux_error = (None if values is None else _rows(values) for values in (flux, flux_error))
        grid = self.wavelength if wavelength is None else vacuum_grid(wavelength, "The spectra")
        if flux.shape[-1] != len(grid):
            raise SpectangleError(
                f"The spectra have {flux.shape[-1]} pixels and their grid has {len(grid)}; give the grid that "
                "they are on: wavelength=..."
            )
        if not len(flux):
            raise SpectangleError(f"The spectra have the shape {flux.shape}: there is none; give at least one.")
        check_arrays(flux, flux_error, grid, "The spectra")
        return flux, flux_error, grid


def _rows(values: Any) -> Any:
    """Spectra [n, Q], of one [Q] or many, with the mask or unit that they have."""
    values = values if hasattr(values, "ndim") and hasattr(values, "dtype") else np.ma.asarray(values)
    return values[None] if values.ndim == 1 else values
