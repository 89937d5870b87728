r"""Write the embedded survey: a population of stars, their emulated spectra, and what an observer would get of them."""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter
from spectangle.synthetic.emulator import default_emulator
from spectangle.synthetic.observation import observe_stars
from spectangle.synthetic.population import LABEL_UNITS, LABELS, Population, draw_population
from spectangle.synthetic.simulation_progress import progress
from spectangle.synthetic.synthesis import WAVELENGTH

__all__ = ["PAPER_SIZE", "TRUE_COLUMNS", "embedded_stars", "fingerprint", "is_embedded", "write_survey"]

PAPER_SIZE = 64_305  # stars in the paper (section 3.1)
BLOCK = 2048  # stars that share a stream of random numbers
ORIGIN = (
    "synthetic: LTE spectra of the Gaia RVS window (spectangle.synthetic), labels drawn from a mixture fitted to "
    "APOGEE "
    "DR16; no star in this file exists, and source_id is made up"
)
TRUE_COLUMNS = (*(f"true_{name}" for name in LABELS), "vbroad", "radial_velocity_residual")  # what made a spectrum
INGREDIENTS = (
    *("emulator.npz", "tables/label_mixture.json"),
    *("embedded.py", "emulator.py", "observation.py", "population.py", "synthesis.py"),
)


def write_survey(path: str | Path, n_stars: int = PAPER_SIZE, seed: int = 0) -> Path:
    """Write a survey of synthetic stars, the same one for the same size and seed.

    Stars are drawn and written block by block, each block from its own stream of random numbers: memory stays small,
    and a smaller survey holds the first stars of a larger one.

    Arguments:
        path: File to write (HDF5).
        n_stars: Number of stars.
        seed: Seed of labels, nuisances and noise.

    Returns:
        Path

    Raises:
        SpectangleError: If ``n_stars`` is less than 1, or the file cannot be written.
    """
    if n_stars < 1:
        raise SpectangleError(f"A survey of {n_stars} stars was asked for; ask for at least 1.")
    release = f"fingerprint {fingerprint()}, seed {seed}"
    with (
        SurveyWriter(path, wavelength=WAVELENGTH, label_units=LABEL_UNITS, origin=ORIGIN, release=release) as writer,
        progress("embedded survey", n_stars) as advance,
    ):
        for stars, flux, flux_error in embedded_stars(n_stars, seed):
            writer.append(flux=flux, flux_error=flux_error, **_record(stars))
            advance(len(flux))
    return Path(path)


def embedded_stars(n_stars: int, seed: int = 0) -> Iterator[tuple[Population, np.ndarray, np.ndarray]]:
    """Yield blocks of (population, flux [n, P], flux_error [n, P]), float32, until there are ``n_stars`` stars."""
    emulator = default_emulator()
    for first in range(0, n_stars, BLOCK):
        rng = np.random.default_rng([seed, first // BLOCK])
        stars = draw_population(BLOCK, rng, first)
        flux, flux_error = observe_stars(emulator(stars.labels, stars.vbroad), stars.snr, stars.velocity, rng)
        count = min(BLOCK, n_stars - first)
        yield stars.head(count), flux[:count], flux_error[:count]


def is_embedded(survey: Survey) -> bool:
    """Whether a survey says that :func:`write_survey` wrote it, and has all that its spectra were made from."""
    return (
        survey.attributes["origin"] == ORIGIN
        and survey.has_flux_error
        and set(TRUE_COLUMNS) <= set(survey.columns)
        and np.array_equal(survey.wavelength, WAVELENGTH)
    )


def _record(stars: Population) -> dict:
    """Name the values of a population as survey files do."""
    columns = {f"true_{name}": values for name, values in zip(LABELS, stars.labels.T, strict=True)}
    columns |= {
        "snr": stars.snr,
        "phot_g_mean_mag": stars.magnitude,
        "vbroad": stars.vbroad,
        "radial_velocity_residual": stars.velocity,
    }
    return {
        "source_id": stars.source_id,
        "labels": dict(zip(LABELS, stars.catalogue.T, strict=True)),
        "label_errors": dict(zip(LABELS, stars.label_errors.T, strict=True)),
        "columns": columns,
    }


def fingerprint() -> str:
    """Return a short hash of everything that shapes the survey: a cached file with another one is out of date."""
    folder, digest = files("spectangle.synthetic"), hashlib.sha256()
    for name in INGREDIENTS:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
