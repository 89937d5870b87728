"""All that the page needs to know: stars, networks, maps, numbers, as one JSON-able dict.

Shapes: n stars, P pixels, K labels, Z latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectangle.configs.nested import differing
from spectangle.data.load import load_stars
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.explorer.browser_model import pack, pack_flux, pack_marks, pack_network, pack_steps
from spectangle.explorer.label_words import plain_symbol, short_title, title
from spectangle.explorer.latent_maps import latent_maps
from spectangle.explorer.star_facts import find_star, star_classes, star_names
from spectangle.inference.load import load
from spectangle.inference.readout import ReadoutPart
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run, required
from spectangle.survey.file import Survey
from spectangle.survey.spectral_lines import COLOURS, LINES

__all__ = ["Bundle", "make_bundle", "run_names"]


@dataclass(frozen=True)
class Bundle:
    """The runs of a page, and what the page is told of them.

    Arguments:
        models: One, or two to be compared.
        survey: Path of the survey, to look up any of its stars.
        payload: What the JavaScript gets.
    """

    models: list[TrainedModel]
    survey: str
    payload: dict[str, Any]

    def look_up(self, wanted: str) -> dict[str, Any]:
        """Any star of the survey by its identifier or name, as the page wants it.

        Raises:
            SpectangleError: The survey has no such star, or an encoder needs labels that it lacks.
        """
        names = self.models[0].labels
        with Survey(self.survey) as survey:
            row = find_star(survey, wanted)
            flux, ids = survey.flux(row, row + 1), survey.source_id[row : row + 1]
            catalogue = np.array([[survey.label(name)[row] for name in names]], np.float32)
            name = star_names(survey, np.array([row]))
            classes = star_classes(survey, _attributes(self.models), np.array([row]))
        if any(model.network.conditional_encoder for model in self.models) and not np.isfinite(catalogue).all():
            raise SpectangleError(
                f"Star {ids[0]} lacks a label, and the encoder of a run with model.conditioning=synthetic needs all "
                "of them."
            )
        filled = np.where(np.isfinite(flux), flux, self.models[0].fill.numpy()).astype(np.float32)
        latents = [
            model.network.embed(torch.from_numpy(filled), torch.from_numpy(catalogue), ids) for model in self.models
        ]
        with torch.inference_mode():
            read = self.models[0].readout(torch.from_numpy(latents[0])).numpy()
        return {
            "id": str(ids[0]),
            "name": "".join(name),
            "classes": {attribute: words[0] for attribute, words in classes.items()},
            "flux": pack_flux(flux),
            "labels": pack(np.where(np.isfinite(catalogue), catalogue, read)),
            "read": pack_marks(~np.isfinite(catalogue)),
            "latents": [pack(z) for z in latents],
        }


def make_bundle(
    run: str | None, compare: str | None = None, stars: int = 400, map_stars: int = 2000, survey: str | None = None
) -> Bundle:
    """Collect what a page shows: test stars only, the ones that no network was fitted to.

    Arguments:
        run: Folder of the run.
        compare: A second run of the same survey, shown beside the first.
        stars: Stars whose spectra go into the page.
        map_stars: Stars on the maps.
        survey: Where the run's survey lies now, if it was moved.

    Raises:
        SpectangleError: A run is not finished, its survey is gone, or the two runs do not fit together.
    """
    runs = [Run(required(run))] + ([Run(compare)] if compare else [])
    models = [load(one.path, survey, calibrated=False) for one in runs]
    for model in models:
        model.readout.check_copied(f"The explorer reads labels in the browser, and cannot for {model.identity['run']}")
    data = load_stars(runs[0], survey)
    if len(runs) == 2 and (
        models[1].labels != models[0].labels or load_stars(runs[1], survey).fingerprint != data.fingerprint
    ):
        raise SpectangleError(
            f"{compare} and {run} were trained on different stars or labels; compare two runs of the same survey "
            "and split."
        )
    rows = np.random.default_rng(0).permutation(len(data.test))[: max(map_stars, stars)]
    shown = data.test[rows]
    payload = {
        "labels": [_label(models[0], data, i) for i in range(len(data.labels))],
        "wavelength": pack(models[0].wavelength),
        "lines": [
            {"species": species, "wavelength": wavelength, "about": about} for species, wavelength, about in LINES
        ],
        "colours": COLOURS,
        "stars": {
            "id": [str(one) for one in shown.source_id],  # 64-bit integers do not fit a JavaScript number
            "labels": pack(models[0].known_labels(shown)),  # a page can begin with what is read
            "read": pack_marks(~np.isfinite(shown.labels.numpy())),
            "flux": pack_flux(_spectra(data, rows[:stars])),
            **_facts(data, models, shown.rows),
        },
        "survey": {"stars": _count(data), "origin": _origin(data)},
        "runs": [
            {"name": name} | _run(one, model, data, rows)
            for name, one, model in zip(run_names(runs), runs, models, strict=True)
        ],
    }
    return Bundle(models, str(data.path), payload)


def run_names(runs: Sequence[Run]) -> list[str]:
    """A name for each run that tells it from the others: the end of its path that no other has, for instance
    ``ce0d5e8cc6/seed=0``, and which options of its command line the others have not.
    """
    paths = [run.path.resolve() for run in runs]
    deepest = max(len(path.parts) for path in paths)
    ends = ([str(Path(*path.parts[-n:])) for path in paths] for n in range(1, deepest + 1))
    names = next((found for found in ends if len(set(found)) == len(paths)), [path.name for path in paths])
    choices = [{key: value for key, value in run.choices.items() if not key.startswith("hydra.")} for run in runs]
    told = differing(choices)
    words = [[f"{key}={of[key]}" for key in told if key in of] for of in choices]
    words = [[word for word in of if word not in Path(name).parts] for name, of in zip(names, words, strict=True)]
    return [f"{name} ({', '.join(of)})" if of else name for name, of in zip(names, words, strict=True)]


def _label(model: TrainedModel, data: SpectraDataModule, i: int) -> dict[str, Any]:
    """Words of a label, and the range of its slider: that of all training stars but for the outermost of a thousand at
    either end, as one wrong age would leave no room to the others.
    """
    values, unit = data.train.labels[:, i].numpy(), model.units[model.labels[i]]
    step = 10.0 if unit == "K" else 0.01
    low = float(np.nanquantile(values, 0.001, method="higher"))  # of few stars the outermost one
    high = float(np.nanquantile(values, 0.999, method="lower"))
    if low == high:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if unit != "K":  # a label of small numbers has smaller steps
        step = min(step, float(10.0 ** np.floor(np.log10((high - low) / 20))))
    return {
        "name": model.labels[i],
        "symbol": plain_symbol(model.labels[i]),
        "title": title(model.labels[i], unit),
        "short": short_title(model.labels[i], unit, 34),
        "unit": unit,
        "low": np.floor(low / step) * step,
        "high": np.ceil(high / step) * step,
        "step": step,
    }


def _run(run: Run, model: TrainedModel, data: SpectraDataModule, rows: np.ndarray) -> dict[str, Any]:
    flux, labels = data.test.flux[torch.from_numpy(rows)], data.test.labels[torch.from_numpy(rows)]
    latent = model.network.embed(flux, labels, data.test.source_id[rows])
    maps = latent_maps(latent, run.derived(f"map-{run.checkpoint_hash[:12]}.npz"))
    scalers = model.network.flux_scaler, model.network.label_scaler
    return {
        "lambdas": list(model.lambdas.values()),
        "knows": [_knows(model, name) for name in model.labels],
        "attributes": [_knows_of_attribute(model, i) for i in range(len(model.labels), len(model.network.targets))],
        "latent": pack_steps(latent),
        "maps": {name: pack_steps(values) for name, values in maps.items()},
        "decoder": pack_network(model.network.decoder.layers),
        "told": scalers[1](scalers[1].mean[None])[0, len(model.labels) :].tolist(),
        "readout": [_packed(part) for part in model.readout.parts],  # pyright: ignore[reportArgumentType]
        "readoutOrder": model.readout.order,
        "fluxMean": pack(scalers[0].mean.numpy()),
        "fluxScale": pack(scalers[0].scale.numpy()),
        "labelMean": pack(scalers[1].mean.numpy()),
        "labelStd": pack(scalers[1].std.numpy()),
    }


def _packed(part: ReadoutPart) -> dict[str, Any]:
    """One network of the regressor, and its support vector machines if it has any."""
    kernel = ("centres", "weights", "offset") if part.n_centres else ()
    names = ("mean", "scale", "label_mean", "label_scale", *kernel)
    arrays = {name: pack(getattr(part, name).numpy()) for name in names}
    return {"layers": pack_network(part.layers), "gamma": float(part.gamma) if kernel else None, "arrays": arrays}


def _knows(model: TrainedModel, name: str) -> dict[str, Any]:
    """R2 of a label from the latent and from the raw spectra, by the probes if the run has them and else by the
    regressor, and from the kept labels alone (floor).
    """
    metrics = model.metrics
    probe = f"probe/{name}/r2" in metrics
    return {
        "r2": metrics.get(f"probe/{name}/r2", metrics.get(f"test/latent/{name}/r2")),
        "spectra": metrics.get(f"reference/{name}/r2" if probe else f"test/spectra/{name}/r2"),
        "floor": metrics.get(f"floor/{name}"),
        "excess": metrics.get(f"excess/{name}"),
        "atMost": bool(metrics.get("excess_is_upper_bound")),
        "by": "probe" if probe else "regressor",
    }


def _knows_of_attribute(model: TrainedModel, i: int) -> dict[str, Any]:
    """Balanced accuracy of the classes of a target by the probes, from the latent and from the raw spectra, and that of
    chance; the excess is an R2, as that of a label.
    """
    metrics, name = model.metrics, model.network.targets[i]
    return {
        "name": name,
        "lambda": model.network.adversary.lambdas[i],
        "accuracy": metrics.get(f"probe/{name}/balanced_accuracy"),
        "spectra": metrics.get(f"reference/{name}/balanced_accuracy"),
        "chance": metrics.get(f"probe/{name}/chance"),
        "excess": metrics.get(f"excess/{name}"),
        "atMost": bool(metrics.get("excess_is_upper_bound")),
    }


def _attributes(models: Sequence[TrainedModel]) -> list[str]:
    """Columns of the survey with classes that one of the runs was told."""
    return list(dict.fromkeys(name for model in models for name in model.network.targets[len(model.labels) :]))


def _facts(data: SpectraDataModule, models: Sequence[TrainedModel], rows: np.ndarray) -> dict[str, Any]:
    with Survey(data.path or "") as survey:
        return {"name": star_names(survey, rows), "classes": star_classes(survey, _attributes(models), rows)}


def _spectra(data: SpectraDataModule, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Spectra [n, P] of test stars as they are in the survey, masked pixels NaN."""
    wanted = data.test.rows[rows]
    flux = np.full((len(wanted), data.n_pixels), np.nan, np.float32)
    with Survey(data.path or "") as survey:
        for start, stop in survey.chunks():
            here = (wanted >= start) & (wanted < stop)
            flux[here] = survey.flux(start, stop)[wanted[here] - start]
    return flux


def _count(data: SpectraDataModule) -> int:
    return len(data.train) + len(data.validation) + len(data.test)


def _origin(data: SpectraDataModule) -> str:
    with Survey(data.path or "") as survey:
        return survey.attributes["origin"].split(":")[0].split(";")[0]
