"""The exported model of a finished run, as it goes up in the run's model artifact: what ``spectangle export`` writes,
in ``wandb/model/``.

It lies in the run folder, because an offline run is sent later. It is an extra: without it the artifact has the
checkpoint.
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from spectangle.runs.folder import Run

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.inference.trained import TrainedModel

__all__ = ["exported"]

log = logging.getLogger(__name__)


def exported(run: Run, data: "SpectraDataModule", onnx: bool = False) -> list[Path]:
    """Export a run's model and return its files; what is not possible is said in one line and left out.

    Arguments:
        run: The run.
        data: Its stars, for the uncertainties of predictions; they are in memory already.
        onnx: Whether model.onnx is written too.
    """
    folder = run.path / "wandb" / "model"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(run, data, folder, onnx)
    except Exception as error:  # whatever it is, the run is finished
        log.warning("W&B gets the checkpoint but no exported model: %s", _reason(error))
        shutil.rmtree(folder, ignore_errors=True)
    return sorted(folder.glob("*"))


def _write(run: Run, data: "SpectraDataModule", folder: Path, onnx: bool) -> None:
    from spectangle.export.package import write_model
    from spectangle.inference.calibrate import calibrate
    from spectangle.inference.load import load

    model = load(run.path, calibrated=False)
    if not model.network.conditional_encoder:
        model = model.with_calibration(calibrate([model], data))
    if onnx:
        _write_onnx(model, folder / "model.onnx")
    write_model(model, run, folder)


def _write_onnx(model: "TrainedModel", path: Path) -> None:
    from spectangle.export.onnx import export_onnx

    try:
        export_onnx(model, path)
    except Exception as error:
        log.warning("W&B gets no model.onnx: %s", _reason(error))
        path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{str(error.name).partition('.')[0]} is missing: pip install 'spectangle[export]'."
    return str(error).splitlines()[0] if str(error) else type(error).__name__
