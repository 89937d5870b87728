"""Load a trained model, from a run folder or from the folder that an export wrote."""

import json
import logging
from pathlib import Path

import numpy as np
import torch

from spectangle.data.load import load_stars, survey_origin
from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.inference.calibrate import calibrate
from spectangle.inference.calibration import Calibration
from spectangle.inference.python_readout import readout_of
from spectangle.inference.readout import Readout
from spectangle.inference.trained import TrainedModel
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run

__all__ = ["EXPORT_FORMAT", "load"]

log = logging.getLogger(__name__)

EXPORT_FORMAT = 3


def load(path: str | Path, survey: str | Path | None = None, calibrated: bool = True) -> TrainedModel:
    """Load a trained model from a run folder, or from the folder that spectangle export wrote.

    Arguments:
        path: The folder.
        survey: Where the run's survey lies now, if it was moved; it is read once, for the uncertainties.
        calibrated: False leaves out what predictions need beyond the labels, and the survey is not read.

    Raises:
        SpectangleError: The folder is neither, the run is not finished, or its survey is gone.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        return _load_exported(path)
    return _load_run(Run(path), survey, calibrated)


def _load_run(run: Run, survey: str | Path | None, calibrated: bool) -> TrainedModel:
    metrics = run.metrics
    model = TrainedModel(load_autoencoder(run), readout_of(load_run_regressor(run)), _identity(run), metrics)
    if not calibrated or model.network.conditional_encoder:
        return model
    stored = run.derived(f"calibration-{run.checkpoint_hash[:12]}.npz")
    if stored.is_file():
        if known := Calibration.load(stored):
            return model.with_calibration(known)
        log.info("%s was written by another version of spectangle; the run is calibrated again.", stored.name)
    calibration = calibrate([model], load_stars(run, survey))
    calibration.save(stored)
    return model.with_calibration(calibration)


def _identity(run: Run) -> dict[str, str]:
    manifest = run.manifest
    return {
        "run": run.path.resolve().name,
        "checkpoint": run.checkpoint_hash,
        "commit": manifest["git"]["commit"] or "unknown",
        "survey": manifest["survey"]["content_hash"],
        "trained_on": survey_origin(run),
        "seed": str(manifest.get("seed")),
        "spectangle": manifest["spectangle"],
    }


def _load_exported(folder: Path) -> TrainedModel:
    """Load a model that :func:`export` wrote.

    Raises:
        SpectangleError: The folder is damaged, or of a later version.
    """
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except Exception as error:  # safetensors has its own exception
        raise SpectangleError(
            f"{folder} is not an exported model, or was damaged ({error}); export the run again."
        ) from None
    if config["format"] != EXPORT_FORMAT:
        raise SpectangleError(
            f"{folder} has format {config['format']}; this version of spectangle reads {EXPORT_FORMAT}. Export the run "
            f"again, or install the spectangle that wrote it ({config['spectangle']})."
        )
    wavelength = tensors.pop("wavelength").tolist()
    network = DisentanglingAutoencoder(**config["network"], wavelength=wavelength)
    missing = network.load_state_dict(_part(tensors, "network."), strict=False).missing_keys
    # what only training needs stays with the run: the discriminators, and what guesses labels that are missing
    if any(not name.startswith(("adversary.", "estimator.")) for name in missing):
        raise SpectangleError(
            f"{folder} lacks the weights {', '.join(missing[:3])}; export the run again with this version of "
            "spectangle."
        )
    readout = Readout(config["readout"])
    readout.load_state_dict(_part(tensors, "readout."))
    calibration = (
        Calibration(**{name: array.numpy() for name, array in _part(tensors, "calibration.").items()})
        if config["calibrated"]
        else None
    )
    return TrainedModel(network.eval(), readout.eval(), config["identity"], config["metrics"], calibration)


def _part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(values)
        for name, values in tensors.items()
        if name.startswith(prefix)
    }
