"""The model card of an exported model: data, numbers, probes, limits, in Markdown."""

from typing import TYPE_CHECKING

import numpy as np

from spectangle.prediction.quality import Quality
from spectangle.runs import Run
from spectangle.tables import number

if TYPE_CHECKING:
    from spectangle.trained import TrainedModel

__all__ = ["model_card"]

WORDS = {1: "disentangled (removed)", -1: "entangled (kept)", 0: "neutral"}


def model_card(model: "TrainedModel", run: Run) -> str:
    """The card of a run's model."""
    sections = [_head(model, run), _use(model), _numbers(model), _latent(model), _uncertainties(model), _limits(model)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(model: "TrainedModel", run: Run) -> str:
    hparams, manifest = model.network.hparams, run.manifest
    wavelength = model.wavelength
    return "\n".join(
        [
            f"# Adversarial autoencoder of stellar spectra, run {model.identity['run']}",
            "",
            "An encoder, a decoder and a regressor after Manteiga et al. 2025 (A&A 694, A326), trained with spectangle.",
            "",
            "| | |",
            "|---|---|",
            f"| spectra | {len(wavelength)} pixels, {wavelength[0]:.3f} to {wavelength[-1]:.3f} nm in vacuum, flux over continuum, rest frame |",
            f"| latent | {hparams['latent']} numbers |",
            f"| labels | {', '.join(f'{name} [{model.units[name]}]' for name in model.labels)} |",
            f"| conditioning | {hparams['conditioning']} |",
            f"| survey | {_survey(run)} (content {model.identity['survey'][:16]}) |",
            f"| trained with | `{manifest['command']}`, seed {model.identity['seed']}, commit {model.identity['commit'][:12]} |",
            f"| checkpoint | {model.identity['checkpoint'][:16]} |",
        ]
    )


def _survey(run: Run) -> str:
    from spectangle.errors import SpectangleError
    from spectangle.survey import Survey

    try:
        with Survey(run.survey_path) as survey:
            return f"{len(survey)} stars, {survey.attributes['origin']}, {survey.attributes['release']}"
    except SpectangleError:
        return run.survey_path.name


def _use(model: "TrainedModel") -> str:
    name = model.labels[0]
    return f"""## Use

```python
import spectangle

model = spectangle.load("this-folder")
table = model.predict(flux, flux_error)             # labels, uncertainties, flags; wavelength=... for another grid
latent = model.encode(flux)
changed = model.generate(flux, {name}={model.readout.label_mean[0]:.4g})
```

`model.onnx`, where it was exported, maps `flux` (float32, NaN = masked) to `latent` and `labels` in any ONNX runtime."""


def _numbers(model: "TrainedModel") -> str:
    rows = [
        "## Labels read from test stars (predicted - catalogue)",
        "",
        "| label | read from | MAE | mean | sigma | R2 |",
        "|---|---|---|---|---|---|",
    ]
    for name in model.labels:
        unit = model.units[name]
        for representation, words in (("latent", "latent"), ("spectra", "raw spectra (baseline)")):
            values = [model.metrics.get(f"test/{representation}/{name}/{key}") for key in ("mae", "mean", "sigma", "r2")]
            if values[0] is not None:
                cells = [number(value, unit) for value in values[:3]] + [number(values[3])]
                rows.append(f"| {name} [{unit}] | {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _latent(model: "TrainedModel") -> str:
    rows = [
        "## What the latent knows",
        "",
        "Independent regressors on the frozen latent (R2 of the best of them); erasure is what they lost of what the spectra hold; excess is",
        "what the latent tells about a label beyond what the kept labels tell about it anyway.",
        "",
        "| label | lambda | aim | probe R2 | erasure | excess |",
        "|---|---|---|---|---|---|",
    ]
    for name, value in model.lambdas.items():
        probes = [number(model.metrics.get(key)) for key in (f"probe/{name}/r2", f"erasure/{name}", f"excess/{name}")]
        rows.append(f"| {name} | {value:+g} | {WORDS[(value > 0) - (value < 0)]} | {' | '.join(probes)} |")
    return "\n".join(rows)


def _uncertainties(model: "TrainedModel") -> str:
    if model.calibration is None:
        return ""
    rows = [
        "## Uncertainties",
        "",
        f"Split-conformal intervals from {len(model.calibration.scores)} validation stars,",
        f"checked on {len(model.calibration.test_scores)} test stars:",
        "",
        f"| coverage asked for | {' | '.join(model.labels)} |",
        f"|---|{'---|' * len(model.labels)}",
    ]
    for coverage in (0.5, 0.6827, 0.9):
        measured = model.calibration.measured_coverage(coverage)
        rows.append(f"| {coverage:g} | {' | '.join(f'{value:.3f}' for value in measured)} |")
    return "\n".join(rows)


def _limits(model: "TrainedModel") -> str:
    lines = [
        "## Limits",
        "",
        "- The stated coverage holds for stars like those of the survey, seen with the same instrument; it covers the catalogue's labels with",
        "  their own errors, not the truth.",
        "- Spectra must be normalised to the continuum, in the star's rest frame and in vacuum wavelengths.",
        "- A label that was not disentangled stays in the latent: changing it in `generate` moves the spectrum only in part.",
        f"- Quality flags: {Quality.legend()}.",
    ]
    if model.calibration is not None:
        low, high = np.asarray(model.calibration.label_range)
        ranges = [
            f"{name} {number(a, model.units[name])} to {number(b, model.units[name])}" for name, a, b in zip(model.labels, low, high, strict=True)
        ]
        lines.insert(2, f"- Training stars span {', '.join(ranges)}; beyond that the model extrapolates.")
    return "\n".join(lines)
