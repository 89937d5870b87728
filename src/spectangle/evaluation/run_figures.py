"""The figures of one run, written into its folder when it ends, or drawn again from the folder.

Shapes: N stars, P pixels, K labels, Z latent.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from matplotlib.figure import Figure

from spectangle.configs.label_lambdas import FATES, fate
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.evaluation.at_limit import limit_residuals
from spectangle.evaluation.downstream import best_model
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.figures import (
    diagram_axes,
    diagrams_figure,
    information_figure,
    map_figure,
    minus,
    mutual_information,
    noise_residual_figure,
    plane,
    prediction_figure,
    reconstruction_figure,
    save,
    symbol,
)
from spectangle.metrics import number
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = [
    "ReadStars",
    "RunFigures",
    "draw_run",
    "labels_by_fate",
    "read_test_stars",
    "reconstructions",
    "signal_to_noise",
]

IN_A_TITLE = 5  # labels: more do not fit above a spectrum

log = logging.getLogger(__name__)


class RunFigures(L.Callback):
    """Write the run's figures into ``figures/`` after training; a figure that fails costs a warning, not the run.

    It reads the fitted regressor from the run folder, so it comes after the regressor's callback.

    Arguments:
        folder: Run folder.
        max_stars: Draw at most this many test stars.
        tsne_stars: Test stars in the t-SNE, which takes seconds; 0 = none.
        in_packs: Whether a run that trains in a pack draws too; all runs of a pack would at once.
    """

    def __init__(self, folder: str, max_stars: int = 13000, tsne_stars: int = 1000, in_packs: bool = False):
        self.folder, self.max_stars, self.tsne_stars, self.in_packs = Path(folder), max_stars, tsne_stars, in_packs
        self.metrics: dict[str, float] = {}

    def on_fit_end(self, trainer: Any, pl_module: "DisentanglingAutoencoder") -> None:
        if pl_module.pack is not None and pl_module.pack.in_company and not self.in_packs:
            log.info(
                "figures are not drawn in a pack; spectangle report kind=figures runs=[%s] draws them", self.folder
            )
            return
        start = time.perf_counter()
        try:
            run, model = Run(self.folder, must_exist=False), best_model(trainer, pl_module)
            draw_run(run, model, trainer.datamodule, self.max_stars, self.tsne_stars)
        except Exception as error:  # whatever it is: hours of training are worth more than a picture
            log.warning(
                "warning: the figures of this run could not be drawn (%s: %s); the run itself is complete.",
                type(error).__name__,
                error,
            )
        self.metrics = {"time/figures": time.perf_counter() - start}


@dataclass
class ReadStars:
    """What the figures need of a run: test stars [N], their catalogue and predicted labels by name, latents [N, Z]."""

    rows: np.ndarray
    catalogue: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    spectra_predicted: dict[str, np.ndarray]
    latent: np.ndarray
    units: dict[str, str]


def draw_run(
    run: Run,
    model: "DisentanglingAutoencoder | None" = None,
    data: "SpectraDataModule | None" = None,
    max_stars: int = 13000,
    tsne_stars: int = 1000,
    survey: str | Path | None = None,
) -> list[Path]:
    """Draw the figures of a run as PDF and PNG; return their paths.

    Arguments:
        run: The run.
        model, data: Its model and stars; read from the folder if they are not at hand.
        max_stars: Draw at most this many test stars.
        tsne_stars: Test stars in the t-SNE; 0 = none.
        survey: Where the survey file lies now, if it was moved.
    """
    model, data = model or load_autoencoder(run), data or load_stars(run, survey)
    seen = read_test_stars(run, model, data, max_stars)
    written = []
    for name, figure in _figures(model, data, seen, tsne_stars):
        written += save(figure, run.path / "figures" / name)
    return written


def read_test_stars(
    run: Run, model: "DisentanglingAutoencoder", data: "SpectraDataModule", max_stars: int
) -> ReadStars:
    """Embed test stars and read their labels with the run's regressors."""
    rows = np.sort(np.random.default_rng(0).permutation(len(data.test))[:max_stars])
    latent = model.embed_stars(data.test)[rows]
    truth = data.test.labels[rows].numpy()

    def by_name(values: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[:, i] for i, name in enumerate(data.labels)}

    try:
        spectra = by_name(load_run_regressor(run, "spectra").predict(data.test.flux[rows].numpy()))
    except SpectangleError:
        spectra = {}
    return ReadStars(
        rows, by_name(truth), by_name(load_run_regressor(run).predict(latent)), spectra, latent, dict(data.units)
    )


def signal_to_noise(data: "SpectraDataModule", rows: np.ndarray) -> np.ndarray | None:
    """S/N of some test stars [N]: the survey's column, or the median flux over the noise; None without errors."""
    places = data.test.rows[rows]
    with Survey(str(data.path)) as survey:
        for name in ("rvs_snr", "snr"):
            if name in survey.columns:
                return survey.column(name)[places].astype(float)
        known = survey.has_flux_error
    return np.median(data.test.flux[rows].numpy(), axis=1) / data.test.noise[rows].numpy() if known else None


def reconstructions(
    model: "DisentanglingAutoencoder", data: "SpectraDataModule", seen: ReadStars, n: int = 4
) -> dict[str, Any]:
    """What :func:`~spectangle.figures.reconstruction.reconstruction_figure` draws of some test stars, by rising first
    label (from cool to hot).
    """
    import torch

    first = next(iter(seen.catalogue.values()))
    order = np.argsort(first)[: max(1, np.isfinite(first).sum())]
    chosen = order[(np.linspace(0.04, 0.96, n) * (len(order) - 1)).astype(int)]
    stars = seen.rows[chosen]
    read = [np.where(np.isfinite(truth), truth, seen.predicted[name]) for name, truth in seen.catalogue.items()]
    labels = torch.from_numpy(np.stack(read, axis=1)[chosen].astype(np.float32))
    with torch.no_grad():
        decoded = (
            model.decode(torch.from_numpy(seen.latent[chosen]).to(model.device), labels.to(model.device)).cpu().numpy()
        )
    return {
        "wavelength": data.wavelength,
        "flux": data.test.flux[stars].numpy(),
        "reconstructed": decoded,
        "titles": [
            f"{data.test.source_id[star]}: {_labels_in_words(seen, i)}" for star, i in zip(stars, chosen, strict=True)
        ],
        "flux_error": _flux_errors(data, data.test.rows[stars]),
    }


def _labels_in_words(seen: ReadStars, i: int) -> str:
    values = {name: float(seen.catalogue[name][i]) for name in list(seen.catalogue)[:IN_A_TITLE]}
    return ", ".join(
        f"{symbol(name)} {minus(number(value, seen.units[name]))} {seen.units[name]}".rstrip()
        if np.isfinite(value)
        else f"{symbol(name)} unknown"
        for name, value in values.items()
    )


def _flux_errors(data: "SpectraDataModule", places: np.ndarray) -> np.ndarray | None:
    """Errors of some spectra [n, P] by their rows in the survey, if it has any."""
    with Survey(str(data.path)) as survey:
        errors = [survey.flux_error(int(place), int(place) + 1) for place in places]
    return None if any(error is None for error in errors) else np.concatenate([e for e in errors if e is not None])


def _figures(
    model: "DisentanglingAutoencoder", data: "SpectraDataModule", seen: ReadStars, tsne_stars: int
) -> Iterator[tuple[str, Figure]]:
    yield (
        "predicted",
        prediction_figure(
            seen.predicted, seen.catalogue, seen.units, f"Read from the latent, {len(seen.rows):,} test stars"
        ),
    )
    if diagram_axes(seen.catalogue):
        columns = {"from the spectra": [seen.spectra_predicted] * 2} if seen.spectra_predicted else {}
        yield (
            "kiel_chemical",
            diagrams_figure(seen.catalogue, columns | {"from the latent": [seen.predicted] * 2}, seen.units),
        )
    yield (
        "information",
        information_figure(
            {"latent": mutual_information(seen.latent, np.stack(list(seen.catalogue.values()), axis=1))}, data.labels
        ),
    )
    yield "reconstruction", reconstruction_figure(**reconstructions(model, data, seen), title="Four test stars")
    snr = signal_to_noise(data, seen.rows)
    if snr is not None and np.isfinite(snr).sum() > 50:
        sources = ({"spectra": seen.spectra_predicted} if seen.spectra_predicted else {}) | {"latent": seen.predicted}
        residuals = {
            word: {name: found[name] - seen.catalogue[name] for name in found} for word, found in sources.items()
        }
        limit = limit_residuals(data, seen.rows)
        yield "residual_snr", noise_residual_figure(residuals, snr, seen.units, limit=limit)
    if min(tsne_stars, len(seen.rows)) >= 20 and seen.latent.shape[1] > 1:
        yield "tsne", _latent_map(model, seen, tsne_stars)


def _latent_map(model: "DisentanglingAutoencoder", seen: ReadStars, n: int) -> Figure:
    """t-SNE of the latent, coloured by each label: the entangled ones above the disentangled ones."""
    rows = np.sort(np.random.default_rng(1).permutation(len(seen.rows))[:n])
    labels = {name: values[rows] for name, values in seen.catalogue.items()}
    title = f"t-SNE of the latent, {len(rows):,} test stars"
    return map_figure({"latent": plane(seen.latent[rows])}, labels, seen.units, labels_by_fate(model), title)


def labels_by_fate(model: "DisentanglingAutoencoder") -> dict[str, list[str]]:
    """Labels that a latent keeps, leaves alone and loses, by these words, without those that stand for none."""
    lambdas = list(zip(model.targets, model.adversary.lambdas, strict=True))[: len(model.labels)]
    groups = {word: [name for name, value in lambdas if fate(value) == word] for word in FATES}
    return {word: names for word, names in groups.items() if names}
