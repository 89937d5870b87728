"""Encoder and regressor as one ONNX graph: flux [stars, P] in continuum units, NaN = masked, to latent and labels.

A stochastic latent has a second input, noise [stars, Z]: the draws of the stars,
``spectangle.survey.star_draws.star_normal(source_id, Z, seed=salt)``. So the graph has no random numbers in it, and the
latent of a star is the same in any runtime.

The file has the oldest opset that serves, 14 with IR 7 (ONNX 1.9, 2021): onnxruntime 1.8 and later read it.
"""

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from spectangle.errors import SpectangleError

if TYPE_CHECKING:
    from spectangle.inference.trained import TrainedModel

__all__ = ["IR", "OPSET", "RUNTIME", "export_onnx"]

TOLERANCE = 1e-5
WRITTEN_OPSET = 18  # the oldest that torch writes
OPSET, IR, RUNTIME = 14, 7, "1.8"  # Relu and Add have been the same since 14; the version converter does not go below


class _Inference(nn.Module):
    """flux [B, P] (and noise [B, Z]) -> latent [B, Z], labels [B, K] in their units."""

    def __init__(self, model: "TrainedModel"):
        super().__init__()
        self.scaler, self.encoder, self.channel, self.readout = (
            model.network.flux_scaler,
            model.network.encoder,
            model.network.channel,
            model.readout,
        )
        self.fill: Tensor
        self.register_buffer("fill", model.fill.clone())

    def forward(self, flux: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latent = self.encoder(self.scaler(torch.where(torch.isnan(flux), self.fill, flux)))
        if self.channel is not None:
            latent = self.channel(latent, noise)
        return latent, self.readout(latent)


def export_onnx(model: "TrainedModel", path: Path) -> float:
    """Write the graph and compare it with torch; return the largest difference in standard deviations.

    Raises:
        SpectangleError: The encoder needs labels, the regressor has no layers, the packages are not there, or
            onnxruntime disagrees.
    """
    if model.network.conditional_encoder:
        raise SpectangleError(
            "A model with model.conditioning=synthetic cannot be written as ONNX for prediction: its encoder needs "
            "labels. Say onnx=false."
        )
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SpectangleError(
            f"ONNX needs {error.name}: pip install 'spectangle[export]', or say onnx=false."
        ) from None
    model.readout.check_copied("This run can predict, but not be written as ONNX")
    graph = _Inference(model).eval()
    inputs = _examples(model)
    _write(graph, inputs, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    latent, labels = session.run(None, {name: values.numpy() for name, values in inputs.items()})
    with torch.inference_mode():
        expected_latent, expected_labels = graph(**inputs)
    scales = (model.readout.scale.numpy(), model.readout.label_scale.numpy())
    pairs = ((latent, expected_latent.numpy(), scales[0]), (labels, expected_labels.numpy(), scales[1]))
    difference = max(float((np.abs(a - b) / scale).max()) for a, b, scale in pairs)
    if not difference < TOLERANCE:
        raise SpectangleError(
            f"onnxruntime and torch differ by {difference:.1e} standard deviations, more than {TOLERANCE:g}; "
            "export with onnx=false and report this."
        )
    return difference


def _write(graph: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    import onnx
    from onnx import version_converter

    options = {
        "input_names": list(inputs),
        "output_names": ["latent", "labels"],
        "dynamo": True,
        "external_data": False,
        "verbose": False,
    }
    options |= {"opset_version": WRITTEN_OPSET}
    for name in ("onnxscript", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        stars = torch.export.Dim("stars")
        torch.onnx.export(
            graph, tuple(inputs.values()), str(path), dynamic_shapes={name: {0: stars} for name in inputs}, **options
        )
    written = version_converter.convert_version(onnx.load(path), OPSET)
    written.ir_version = IR
    onnx.checker.check_model(written)
    onnx.save(written, path)


def _examples(model: "TrainedModel", count: int = 64) -> dict[str, Tensor]:
    """Inputs of the graph: flux around the mean of the training stars, with masked pixels [count, P], and the noise
    that a latent needs.
    """
    random = torch.Generator().manual_seed(0)
    scatter = torch.randn(count, len(model.fill), generator=random) * model.network.flux_scaler.unit
    flux = torch.where(torch.rand(scatter.shape, generator=random) < 0.02, torch.nan, model.fill + scatter)
    noise = model.network.draws(None, count)
    return {"flux": flux} if noise is None else {"flux": flux, "noise": noise}
