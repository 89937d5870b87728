"""The model card of an exported model: data, numbers, probes, limits, in Markdown."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spectangle.configs.label_lambdas import fate
from spectangle.errors import SpectangleError
from spectangle.evaluation.leakage import LEAST_REFERENCE
from spectangle.evaluation.results_table import SOURCES
from spectangle.inference.quality import Quality
from spectangle.metrics import number
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.format import is_synthetic

if TYPE_CHECKING:
    from spectangle.inference.trained import TrainedModel

__all__ = ["model_card"]


def model_card(model: "TrainedModel", run: Run) -> str:
    """The card of a run's model."""
    sections = [_head(model, run), _use(model), _numbers(model), _latent(model), _uncertainties(model), _limits(model)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(model: "TrainedModel", run: Run) -> str:
    hparams, manifest = model.network.hparams, run.manifest
    wavelength = model.wavelength
    rows = {
        "spectra": f"{len(wavelength)} pixels, {wavelength[0]:.3f} to {wavelength[-1]:.3f} nm in vacuum, flux over "
        "continuum, rest frame",
        "latent": f"{hparams['latent']} numbers"
        + ("" if model.network.channel is None else ", one fixed random draw for each star"),
        "labels": ", ".join(f"{name} [{model.units[name]}]" for name in model.labels),
        "conditioning": hparams["conditioning"],
        "trained on": model.trained_on,
        "survey": f"{_survey(run)} (content {model.identity['survey'][:16]})",
        "trained with": f"`{manifest['command']}`, seed {model.identity['seed']}, commit "
        f"{model.identity['commit'][:12]}",
        "checkpoint": model.identity["checkpoint"][:16],
    }
    return f"""# Adversarial autoencoder of stellar spectra, run {model.identity["run"]}

An encoder, a decoder and a regressor after Manteiga et al. 2025 (A&A 694, A326), trained with spectangle.

{_table(("", ""), rows.items())}"""


def _survey(run: Run) -> str:
    try:
        with Survey(run.survey_path) as survey:
            return f"{len(survey)} stars, {survey.attributes['origin']}, {survey.attributes['release']}"
    except SpectangleError:
        return run.survey_path.name


def _use(model: "TrainedModel") -> str:
    return f"""## Use

```python
import spectangle

model = spectangle.load("this-folder")
{_calls(model)}
```

{_formats(model)}"""


def _calls(model: "TrainedModel") -> str:
    changed = [
        name for name in model.labels if model.lambdas[name] > 0
    ] or model.labels  # a spectrum follows what the latent lost
    if model.network.conditional_encoder:
        return "flux = model.decode(latent, labels)                 # latents [n, Z], labels [n, K] in their units"
    ids = "" if model.network.channel is None else ", source_id=source_id"
    mean = model.readout.label_mean[model.labels.index(changed[0])]
    generate = (
        f"\nchanged = model.generate(flux{ids}, {changed[0]}={mean:.4g})" if model.network.decoder.n_labels else ""
    )
    return f"""table = model.predict(flux, flux_error{ids})  # labels, uncertainties, flags; wavelength=... if need be
latent = model.encode(flux{ids}){generate}"""


def _formats(model: "TrainedModel") -> str:
    if model.network.conditional_encoder:
        return (
            "The encoder needs the labels of a star (model.conditioning=synthetic), so this model cannot predict them: "
            "change labels of a survey that has "
            "them with `spectangle generate run=this-folder spectra=survey.h5`."
        )
    onnx = "`model.onnx`, where it was exported, maps `flux` (float32, NaN = masked) to `latent` and `labels`\n"
    onnx += "(opset 14, IR 7: onnxruntime 1.8 or later)."
    return (
        onnx
        if model.network.channel is None
        else onnx.replace("`flux` (float32, NaN = masked)", "`flux` and `noise`") + _noise_of_onnx(model)
    )


def _noise_of_onnx(model: "TrainedModel") -> str:
    salt = int(model.network.channel.salt)  # pyright: ignore[reportOptionalMemberAccess]  # called for stochastic latents only
    return f""" `flux` is float32 with
NaN = masked, and `noise` the draws of the stars, which put the latents where `model.encode` has them:

```python
from spectangle.survey.star_draws import star_normal

noise = star_normal(source_id, {model.network.hparams["latent"]}, seed={salt})  # [stars, latent]; ids are int64
latent, labels = session.run(None, {{"flux": flux, "noise": noise}})
```"""


def _numbers(model: "TrainedModel") -> str:
    rows = []
    for name in model.labels:
        unit = model.units[name]
        for source, words in SOURCES.items():
            values = [model.metrics.get(f"{source}/{name}/{key}") for key in ("mae", "mean", "sigma", "r2")]
            if values[0] is not None:
                rows.append(
                    (f"{name} [{unit}]", words, *(number(value, unit) for value in values[:3]), number(values[3]))
                )
    limit = "\n\nThe limit is what the best possible reader of these spectra would have."
    known = any(row[1] == SOURCES["limit"] for row in rows)
    return f"""## Labels read from test stars (predicted - catalogue)

{_table(("label", "read from", "MAE", "mean", "sigma", "R2"), rows)}{limit if known else ""}"""


def _latent(model: "TrainedModel") -> str:
    rows, bound = [], bool(model.metrics.get("excess_is_upper_bound"))
    for name, value in model.lambdas.items():
        probes = [
            number(model.metrics.get(key)) for key in (f"probe/{name}/r2", f"disentanglement/{name}", f"excess/{name}")
        ]
        rows.append((name, f"{value:+g}", fate(value), *probes))
    return f"""## What the latent knows

{_sample(model)}Independent regressors on the frozen latent, put together (R2): each test star is read by probes
that were fitted on other stars; neither they nor the encoder had seen it. Lost is the share that they miss of what the
spectra hold (-: the spectra do not hold the label, R2 below {LEAST_REFERENCE}).
Excess is what the latent tells about a disentangled label beyond what the entangled ones
tell about it anyway{_bound(bound)}.

{_table(("label", "lambda", "aim", "probe R2", "lost", "excess (at most)" if bound else "excess"), rows)}"""


def _bound(bound: bool) -> str:
    if not bound:
        return ""
    return """; it is at most the number in the table, because the catalogue's values of the
kept labels have errors that the survey does not state: they make what the kept labels tell look smaller than it is"""


def _sample(model: "TrainedModel") -> str:
    """Why the latent is a draw, and what undoes it."""
    if model.network.channel is None:
        return ""
    return """The latent is a sample: the mean that the encoder finds plus noise of a learned size in each dimension,
one fixed draw for each star, hashed from its `source_id`. The noise covers what is left of the disentangled labels;
the mean still knows it, so the mean is not released, and all numbers here are of samples. A star has the same draw
whenever it is read: give the same `source_id` each time (without, stars are
numbered from 1 as they come). Averages over one spectrum under
several `source_id` are the mean again: do not hand them on.

The draws follow from the ids and the salt of this model, which follows from the seed and the sizes of the networks:
whoever has this folder, or the config with its seed, can take the noise off a table of latents with ids. Where the
disentangled labels must stay unknown, hand on latents without the ids, and not the model.

"""


def _uncertainties(model: "TrainedModel") -> str:
    known = model.calibration
    if known is None:
        return ""
    rows = [
        (f"{coverage:g}", *("-" if np.isnan(one) else f"{one:.3f}" for one in known.measured_coverage(coverage)))
        for coverage in (0.5, 0.6827, 0.9)
    ]
    if (known.stars != known.stars[:, :1]).any():  # some stars lack labels
        for role, counts in zip(("validation", "test"), known.stars, strict=True):
            rows.append((f"{role} stars that have the label", *map(str, counts)))
    few = "; - where too few validation stars have the label" if any("-" in row for row in rows) else ""
    return f"""## Uncertainties

Split-conformal intervals from {len(known.scores)} validation stars,
checked on {len(known.test_scores)} test stars{few}:

{_table(("coverage asked for", *model.labels), rows)}"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _limits(model: "TrainedModel") -> str:
    lines = [
        "Spectra must be normalised to the continuum, in the star's rest frame and in vacuum wavelengths.",
        "A label that was not disentangled stays in the latent: changing it in `generate` moves the spectrum only "
        "in part.",
    ]
    if is_synthetic(model.trained_on):
        lines.append(
            "Trained on synthetic spectra only: on real stars errors can be several times the stated "
            "uncertainties, without a flag."
        )
    if model.disentangled:
        lines.append(
            f"{', '.join(model.disentangled)}: disentangled from the latent; what `predict` gives for them is "
            "what was left, no measurement."
        )
    if model.calibration is not None:
        lines += _limits_of_predictions(model, model.calibration.label_range)
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def _limits_of_predictions(model: "TrainedModel", label_range: np.ndarray) -> list[str]:
    ends = [
        (name, *(number(end, model.units[name]) for end in one))
        for name, one in zip(model.labels, label_range.T, strict=True)
    ]
    return [
        f"Training stars span {', '.join(f'{name} {low} to {high}' for name, low, high in ends)}; beyond that the "
        "model extrapolates.",
        "The stated coverage holds for stars like those of the survey, seen with the same instrument; it covers "
        "the catalogue's labels with\n"
        "  their own errors, not the truth.",
        f"Quality flags: {Quality.legend()}.",
    ]
