"""Labels of stars that nobody labelled: stream spectra through one run or an ensemble of runs (paper, Fig. 7)."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.configs.label_lambdas import fate
from spectangle.console import console, progress_bar
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.files import refuse_input
from spectangle.inference.calibrate import calibrate
from spectangle.inference.calibration import Calibration
from spectangle.inference.load import load
from spectangle.inference.quality import Limits, Quality
from spectangle.inference.read_chunks import read_chunks
from spectangle.inference.reading import Reading, join
from spectangle.inference.spectra_input import InputSpectra, open_spectra
from spectangle.inference.star_table import check_output, star_table, write_table
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run, required
from spectangle.survey.format import is_synthetic

__all__ = ["predict", "run_folders"]

EVERY_S = 30.0  # between lines that say how far it is, where there is no terminal

log = logging.getLogger(__name__)


def predict(
    run: str | Sequence[str] | None,
    spectra: str | None,
    out: str | None,
    wavelength: str | None = None,
    flux_error: str | None = None,
    source_id: str | None = None,
    coverage: float = 0.6827,
    latents: bool = False,
    limits: Limits | None = None,
    survey: str | None = None,
    max_bad_rows: int = 0,
    wavelength_unit: str = "nm",
    medium: str | None = None,
    columns: Mapping[str, str] | None = None,
    disentangled: str = "flag",
    overwrite: bool = False,
) -> Path:
    """Predict labels for spectra and write them as a table.

    Arguments:
        run: Folder of a run (or of an exported model), or several: an ensemble over seeds.
        spectra, wavelength, flux_error, source_id, max_bad_rows, wavelength_unit, medium, columns: See
            :func:`~spectangle.inference.spectra_input.open_spectra`.
        out: Table to write; its ending says the format.
        coverage: Probability that the catalogue's label lies within the uncertainty.
        latents: Also write z.
        limits: Of the quality flags.
        survey: Where the run's survey lies now, if it was moved.
        disentangled: What becomes of labels that the run disentangled: ``flag`` says so in the table, ``leave_out``
            drops their columns.
        overwrite: Whether an existing table is replaced; what is read never is.

    Raises:
        SpectangleError: Anything wrong with the input, or no spectrum with a usable pixel.
    """
    path, folders = check_output(out, overwrite), run_folders(run)
    refuse_input(path, (spectra, wavelength, flux_error, source_id))
    _check_choices(disentangled, latents, len(folders))
    models, calibration = load_ensemble(folders, survey)
    calibration.quantile(coverage)
    stars = open_spectra(
        spectra, models[0].wavelength, wavelength, flux_error, source_id, max_bad_rows, wavelength_unit, medium, columns
    )
    _say_what_is_known(models, stars, disentangled)
    reading, ids, has_error = read_all(models, stars, latents)
    _refuse_blank(reading, spectra)
    _warn_of_twins(ids)
    table: Any = star_table(
        models[0], reading, ids, has_error, coverage, limits or Limits(), calibration, len(models), latents
    )
    table.meta["run"] = " ".join(model.identity["run"] for model in models)
    _leave_out(table, models[0].disentangled if disentangled == "leave_out" else ())
    write_table(table, path)
    _report(table, path, models[0].labels)
    return path


def _check_choices(disentangled: str, latents: bool, n_runs: int) -> None:
    if disentangled not in ("flag", "leave_out"):
        raise SpectangleError(
            f"disentangled={disentangled} is not known; it can be flag (labels that the run disentangled are "
            "marked) or leave_out."
        )
    if latents and n_runs > 1:
        raise SpectangleError("latents=true needs one run: the latents of several runs are axes of different spaces.")


def _leave_out(table: Any, labels: Sequence[str]) -> None:
    """Drop the columns of some labels."""
    columns = [f"{name}{part}" for name in labels for part in ("", "_uncertainty", "_spread")]
    table.remove_columns([column for column in columns if column in table.colnames])


def _say_what_is_known(models: Sequence[TrainedModel], stars: InputSpectra, disentangled: str) -> None:
    """Say what the run was trained on, and warn where its labels are not to be believed."""
    model = models[0]
    log.info("run %s was trained on: %s", model.identity["run"], model.trained_on)
    if is_synthetic(model.trained_on) and not stars.synthetic:
        log.warning(
            "This run knows synthetic spectra only, and these are not known to be: on real stars its errors can "
            "be several times the "
            "uncertainties that it states, without a flag. Train on real stars: docs/real_stars.md."
        )
    if model.disentangled:
        fate = (
            "their columns are left out"
            if disentangled == "leave_out"
            else "their columns say so; disentangled=leave_out drops them"
        )
        log.warning(
            "%s: disentangled from the latent by this run, so that what is read is no measurement; %s.",
            ", ".join(model.disentangled),
            fate,
        )


def _refuse_blank(reading: Reading, spectra: str | None) -> None:
    if np.isnan(reading.labels).all():
        raise SpectangleError(
            f"{spectra}: every pixel of every spectrum is masked (NaN), so there is nothing to predict from; "
            "check the file."
        )


def _warn_of_twins(ids: np.ndarray) -> None:
    """Say how many ids [n] came more than once: a join on them would mix stars."""
    unique, counts = np.unique(ids, return_counts=True)
    if (several := counts > 1).any():
        log.warning(
            "%d source_id came more than once (the first is %d), in %d of the table's rows; a row each is written, so "
            "take them apart before a join.",
            several.sum(),
            unique[several][0],
            counts[several].sum(),
        )


def run_folders(run: str | Sequence[str] | None) -> list[str]:
    """The folders that ``run=`` names."""
    folders = [run] if isinstance(run, str) else [str(one) for one in run or ()]
    return folders or [required(None)]


def load_ensemble(folders: Sequence[str], survey: str | None = None) -> tuple[list[TrainedModel], Calibration]:
    """Load the runs, and calibrate them together.

    Raises:
        SpectangleError: A run cannot predict, or the runs were not trained on the same stars.
    """
    models = [load(folder, survey) for folder in folders]
    first = models[0]
    for model, folder in zip(models, folders, strict=True):
        if model.calibration is None:
            raise SpectangleError(
                f"{folder} was trained with model.conditioning=synthetic: its encoder needs the labels that are to be "
                "predicted. Use model.conditioning=observed."
            )
        if model.labels != first.labels or not np.array_equal(model.wavelength, first.wavelength):
            raise SpectangleError(
                f"{folder} has other labels or another wavelength grid than {folders[0]}; an ensemble needs runs "
                "of the same survey."
            )
        if [*map(fate, model.lambdas.values())] != [*map(fate, first.lambdas.values())]:
            raise SpectangleError(
                f"{folder} keeps or loses other labels than {folders[0]}; an ensemble needs runs that differ in seed= "
                "only."
            )
    if len(models) == 1:
        return models, first.calibration  # pyright: ignore[reportReturnType]
    data = [load_stars(Run(folder), survey) for folder in folders]
    if any(one.fingerprint != data[0].fingerprint for one in data):
        raise SpectangleError(
            "The runs were trained on different surveys or splits, so they share no held-out stars; give runs "
            "that differ in seed= only."
        )
    return models, calibrate(models, data[0])


def read_all(
    models: Sequence[TrainedModel], spectra: InputSpectra, latents: bool = False
) -> tuple[Reading, np.ndarray, np.ndarray]:
    """Read all stars chunk by chunk; return the readings (latents only if asked), the identifiers [n], and which stars
    came with errors [n].
    """
    readings, ids, has_error = [], [], []
    done, said = 0, time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=spectra.n_stars)
        for chunk, reading in read_chunks(models, spectra.chunks):
            readings.append(reading if latents else replace(reading, latent=np.empty((len(chunk), 0), np.float32)))
            ids.append(chunk.source_id)
            has_error.append(np.full(len(chunk), chunk.flux_error is not None))
            bar.advance(task, len(chunk))
            done += len(chunk)
            if not console.is_terminal and time.monotonic() - said >= EVERY_S:  # a log of a job has no bar
                said = time.monotonic()
                log.info("%d%s stars read", done, "" if spectra.n_stars is None else f" of {spectra.n_stars}")
    if not readings:
        raise SpectangleError("The input holds no spectrum.")
    return join(readings), np.concatenate(ids), np.concatenate(has_error)


def _report(table: Any, path: Path, labels: Sequence[str]) -> None:
    flags = np.asarray(table["flags"])
    log.info("%s: %d stars, %d without any flag", path, len(table), (flags == 0).sum())
    for bit in Quality:
        if count := int((flags & bit.value > 0).sum()):
            log.info("  flag %2d  %-20s %d stars", bit.value, str(bit.name).lower().replace("_", " "), count)
    tested = dict(pair.split("=") for pair in table.meta["tested"].split())
    log.info(
        "coverage %s asked for; on the run's test stars: %s",
        table.meta["coverage"],
        ", ".join(f"{name} {tested[name]}" for name in labels),
    )
