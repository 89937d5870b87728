"""A model to hand to others: safetensors weights, a JSON config, a model card and ONNX, in one folder.

model.safetensors   encoder, channel, decoder, scalers, bins, regressor, wavelength grid, calibration
config.json         sizes and names: what is needed to build the model around the weights
model.onnx          encoder and regressor: flux (and the noise of a stochastic latent) -> latent, labels
README.md           the model card
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.export.model_card import model_card
from spectangle.export.onnx import export_onnx
from spectangle.files import refuse_existing
from spectangle.inference.load import EXPORT_FORMAT, load
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run, required
from spectangle.version import VERSION

__all__ = ["export"]

log = logging.getLogger(__name__)

PARTS = (
    "encoder.",
    "channel.",
    "decoder.",
    "flux_scaler.",
    "label_scaler.",
    "adversary.bins.",
)  # of the network; discriminators stay behind


def export(
    run: str | None, out: str | None, onnx: bool = True, survey: str | None = None, overwrite: bool = False
) -> Path:
    """Write a run's model to a folder that :func:`spectangle.load` and others can use without the run and its survey.

    Arguments:
        run: Folder of the run.
        out: Folder to write.
        onnx: Whether model.onnx is written and compared with torch.
        survey: Where the run's survey lies now, if it was moved.
        overwrite: Whether an existing folder of an exported model is replaced.

    Raises:
        SpectangleError: The run is not finished, its regressor cannot be exported, or the folder cannot be written.
    """
    run = required(run)
    folder = _check_folder(out, overwrite)
    part = folder.with_name(folder.name + ".part")
    model = load(run, survey)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_model(model, Run(run), part)
        if onnx:
            difference = export_onnx(model, part / "model.onnx")
            log.info(
                "model.onnx: onnxruntime agrees with torch to %.1e (of a latent's and a label's standard deviation)",
                difference,
            )
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    except OSError as error:
        raise SpectangleError(
            f"{folder} could not be written ({error}); free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for file in sorted(folder.iterdir()):
        log.info("%s  %.2f MB", file, file.stat().st_size / 1e6)
    return folder


def write_model(model: TrainedModel, run: Run, folder: Path) -> None:
    """Write weights, config and card.

    Raises:
        SpectangleError: The regressor has no weights that could be written.
    """
    from safetensors.numpy import save

    model.readout.check_copied("This run can predict, but not be exported")
    config = {
        "format": EXPORT_FORMAT,
        "spectangle": VERSION,
        "network": {key: value for key, value in model.network.hparams.items() if key != "wavelength"},
        "readout": model.readout.config,
        "calibrated": model.calibration is not None,
        "identity": model.identity,
        "metrics": model.metrics,
    }
    weights = save(_tensors(model), metadata={"format": str(EXPORT_FORMAT), "run": model.identity["run"]})
    (folder / "model.safetensors").write_bytes(
        weights
    )  # save_file would make it unreadable for others, whatever the umask
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(model, run))


def _tensors(model: TrainedModel) -> dict[str, np.ndarray]:
    state: dict[str, Any] = {
        name: tensor.numpy() for name, tensor in model.network.state_dict().items() if name.startswith(PARTS)
    }
    tensors = {f"network.{name}": values for name, values in state.items()}
    tensors |= {f"readout.{name}": tensor.numpy() for name, tensor in model.readout.state_dict().items()}
    tensors |= {
        f"calibration.{name}": values
        for name, values in (model.calibration.arrays() if model.calibration else {}).items()
    }
    return {name: np.ascontiguousarray(values) for name, values in (tensors | {"wavelength": model.wavelength}).items()}


def _check_folder(out: str | None, overwrite: bool) -> Path:
    if not out:
        raise SpectangleError("out is empty; give a folder to write: out=exported.")
    folder = Path(out)
    if not folder.exists():
        return folder
    if not (folder / "config.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise SpectangleError(f"{folder} exists and is not an exported model; choose another folder.")
    refuse_existing(folder, overwrite)
    return folder
