"""A trained model, ready to use: encode, predict, generate.

Shapes: n stars, P pixels, K labels, Z latent.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.export.readout import Readout
from spectangle.prediction.calibration import Calibration, calibrate
from spectangle.prediction.packed import PackedModel
from spectangle.prediction.quality import Limits
from spectangle.prediction.reading import read_spectra
from spectangle.prediction.spectra_input import arrays_on_grid, check_arrays, star_ids, vacuum_grid
from spectangle.runs import Run

if TYPE_CHECKING:
    from astropy.table import Table

    from spectangle.model import DisentanglingAutoencoder

__all__ = ["TrainedModel", "load"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained autoencoder with the regressor that reads labels from its latent.

    Arguments:
        network: The autoencoder, in evaluation mode.
        readout: The regressor.
        identity: Where it comes from: run, commit, survey, versions.
        metrics: Final numbers of the run by metric path.
        calibration: What predictions are compared with; None: labels come without uncertainties.
    """

    network: "DisentanglingAutoencoder"
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
        return self.network.flux_scaler.mean if self.calibration is None else torch.from_numpy(self.calibration.pixel_mean)

    @cached_property
    def packed(self) -> PackedModel:
        """The networks in the form that reads many spectra quickly."""
        return PackedModel(self)

    @property
    def lambdas(self) -> dict[str, float]:
        """lambda of each label: above 0 disentangled, below 0 entangled."""
        return dict(zip(self.labels, self.network.adversary.lambdas, strict=True))

    @property
    def trained_on(self) -> str:
        """The stars that the model knows, in the words of their survey."""
        return self.identity.get("trained_on", "unknown stars")

    @property
    def erased(self) -> list[str]:
        """Labels that the run removed from the latent: what is read of them is no measurement."""
        return [name for name, value in self.lambdas.items() if value > 0]

    def encode(self, flux: np.ndarray, wavelength: np.ndarray | None = None, source_id: np.ndarray | None = None) -> np.ndarray:
        """Latents [n, Z] of spectra [n, P] (NaN = masked pixel), given on a grid in nm or on the model's own.

        A stochastic latent is one fixed draw for each ``source_id`` [n] (default: 1 to n), the same whenever that star is read.
        """
        flux, _ = self._on_grid(flux, wavelength)
        return read_spectra([self], flux, None, star_ids(source_id, len(flux), "The spectra")).latent

    def predict(
        self,
        flux: np.ndarray,
        flux_error: np.ndarray | None = None,
        wavelength: np.ndarray | None = None,
        source_id: np.ndarray | None = None,
        coverage: float = 0.6827,
        limits: Limits | None = None,
    ) -> "Table":
        """Labels with uncertainties, distance from the training stars and quality flags, as an astropy Table.

        Arguments:
            flux, flux_error: Spectra and errors [n, P]; NaN, masked or a fill value such as -9999 = masked pixel.
            wavelength: Their vacuum grid in nm, or as an astropy Quantity, if it is not the model's own.
            source_id: Identifiers [n] (default: 1 to n); the draw of a stochastic latent belongs to them.
            coverage: Probability that the catalogue's label lies within the uncertainty.
            limits: Of the quality flags.
        """
        from spectangle.prediction.star_table import star_table

        flux, flux_error = self._on_grid(flux, wavelength, flux_error)
        ids = star_ids(source_id, len(flux), "The spectra")
        return star_table(self, read_spectra([self], flux, flux_error, ids), ids, flux_error is not None, coverage, limits or Limits())

    @torch.inference_mode()
    def generate(
        self, flux: np.ndarray, wavelength: np.ndarray | None = None, source_id: np.ndarray | None = None, **labels: float | np.ndarray
    ) -> np.ndarray:
        """Spectra [n, P] of the same stars with other labels, ``model.generate(flux, teff=6000)``; the others are as read.

        The latent is that of :meth:`encode` with the same ``source_id`` [n] (default: 1 to n).

        Raises:
            SpectangleError: A label is not one of the model's.
        """
        if unknown := set(labels) - set(self.labels):
            raise SpectangleError(f"This model does not know the label {sorted(unknown)[0]}; its labels are {', '.join(self.labels)}.")
        flux, _ = self._on_grid(flux, wavelength)
        reading = read_spectra([self], flux, None, star_ids(source_id, len(flux), "The spectra"))
        values = reading.labels.copy()
        for name, value in labels.items():
            if not np.isfinite(np.ma.filled(np.ma.asarray(value, dtype=np.float64), np.nan)).all():
                raise SpectangleError(f"{name} has values that are missing or not finite; give a number for each spectrum.")
            values[:, self.labels.index(name)] = value
        return self.decode(reading.latent, values)

    @torch.inference_mode()
    def decode(self, latent: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Spectra [n, P] of latents [n, Z] and labels [n, K]."""
        return self.network.decode(torch.as_tensor(latent, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.float32)).numpy()

    def with_calibration(self, calibration: Calibration | None) -> "TrainedModel":
        """The same model, compared with other numbers."""
        return replace(self, calibration=calibration)

    def _on_grid(self, flux: Any, wavelength: Any, flux_error: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Flux and errors [n, P] on the model's grid, through the door that predict.py's arrays take as well."""
        if self.network.conditional_encoder:
            raise SpectangleError(
                "This model was trained with conditioning=synthetic: its encoder needs the labels of a star, so it cannot read them. "
                "Use conditioning=observed, or change labels of a survey that has them with generate.py."
            )
        flux, flux_error = (None if values is None else _rows(values) for values in (flux, flux_error))
        grid = self.wavelength if wavelength is None else vacuum_grid(wavelength, "The spectra")
        if flux.shape[-1] != len(grid):
            raise SpectangleError(
                f"The spectra have {flux.shape[-1]} pixels and their grid has {len(grid)}; give the grid that they are on: wavelength=..."
            )
        check_arrays(flux, flux_error, grid, "The spectra")
        return arrays_on_grid(flux, flux_error, grid, self.wavelength, "The spectra")


def _rows(values: Any) -> Any:
    """Spectra [n, Q], of one [Q] or many, with the mask or unit that they have."""
    values = values if hasattr(values, "ndim") and hasattr(values, "dtype") else np.ma.asarray(values)
    return values[None] if values.ndim == 1 else values


def load(path: str | Path, survey: str | Path | None = None, calibrated: bool = True) -> TrainedModel:
    """Load a trained model from a run folder, or from the folder that export.py wrote.

    Arguments:
        path: The folder.
        survey: Where the run's survey lies now, if it was moved; it is read once, for the uncertainties.
        calibrated: False leaves out what predictions need beyond the labels, and the survey is not read.

    Raises:
        SpectangleError: The folder is neither, the run is not finished, or its survey is gone.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        from spectangle.export.package import load_exported

        return load_exported(path)
    return _load_run(Run(path), survey, calibrated)


def _load_run(run: Run, survey: str | Path | None, calibrated: bool) -> TrainedModel:
    metrics = run.metrics
    model = TrainedModel(run.model(), Readout.from_regressor(run.regressor()), _identity(run), metrics)
    if not calibrated or model.network.conditional_encoder:
        return model
    stored = run.derived(f"calibration-{run.checkpoint_hash[:12]}.npz")
    if stored.is_file():
        return model.with_calibration(Calibration.load(stored))
    calibration = calibrate([model], run.data(survey))
    calibration.save(stored)
    return model.with_calibration(calibration)


def _identity(run: Run) -> dict[str, str]:
    manifest = run.manifest
    return {
        "run": run.path.resolve().name,
        "checkpoint": run.checkpoint_hash,
        "commit": manifest["git"]["commit"] or "unknown",
        "survey": manifest["survey"]["content_hash"],
        "trained_on": run.survey_origin,
        "seed": str(manifest.get("seed")),
        "spectangle": manifest["spectangle"],
    }
