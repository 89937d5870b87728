"""How often do the quality flags of spectangle predict raise a false alarm, and how often do they miss a spoilt star?

    python benchmarks/quality_flags.py run=RUN [n=3000] [snr=20,40,80,200,400] [seed=0]

The run must be one of the embedded survey: the spectra of its test stars are made again without noise from their true
labels, spoilt on purpose, and observed at each S/N. Two percentages for each: with one limit for all stars, the 99 % of
the validation stars as they are (what spectangle predict did at first), and with limits that go with the S/N.

normal       nothing is wrong: how many are flagged; all others: how many are not
continuum    a smooth error of 2 % rms: straight, bent and S-shaped
shift        30 km/s to either side
resolution   R = 7,000 instead of 11,500; it looks as rotation does, and some stars of the survey rotate as fast
cores        emission fills 40 % of the depth of the Ca II lines
double       a star of similar temperature, half as bright, 60 km/s off
fringes      2 %, 1 nm from crest to crest: the misfit was fitted to nothing like it
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.inference.calibration import Calibration
from spectangle.inference.flag_limits import NORMAL
from spectangle.inference.load import load
from spectangle.inference.read import read_spectra
from spectangle.inference.reading import Reading
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.spectral_lines import LINES
from spectangle.synthetic import LABELS, WAVELENGTH, emulate
from spectangle.synthetic.constants import SPEED_OF_LIGHT_KMS
from spectangle.synthetic.observation import observe_stars, shift_velocity
from spectangle.synthetic.population import FASTEST
from spectangle.synthetic.synthesis import BROADENING_TO_SIGMA, FWHM_TO_SIGMA, RESOLVING_POWER

CORE = 0.117 * FWHM_TO_SIGMA  # nm: 30 km/s of chromosphere, seen at the instrument's resolution
FLAGS = ("out of distribution", "poor reconstruction", "either")


@dataclass
class Truth:
    """What is true of n test stars: labels [n, 4], rotation and residual velocity [n] in km/s."""

    labels: np.ndarray
    vbroad: np.ndarray
    velocity: np.ndarray

    def spectra(self, extra: float = 0.0) -> np.ndarray:
        """Spectra [n, P] without noise, with `extra` broadening in km/s."""
        return emulate(self.labels, np.minimum(np.hypot(self.vbroad, extra), FASTEST))

    def companions(self) -> np.ndarray:
        """For each star the one of the next lower temperature [n]."""
        order = np.argsort(self.labels[:, 0])
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        return other


def continuum(truth: Truth, random: np.random.Generator) -> np.ndarray:
    curves = random.standard_normal((len(truth.labels), 3)) @ legvander(np.linspace(-1, 1, len(WAVELENGTH)), 3)[:, 1:].T
    return truth.spectra() * (1 + 0.02 * curves / np.sqrt(np.mean(curves**2, axis=1, keepdims=True)))


def shift(truth: Truth, random: np.random.Generator) -> np.ndarray:
    return shift_velocity(truth.spectra(), 30.0 * random.choice([-1, 1], len(truth.labels)))


def resolution(truth: Truth, random: np.random.Generator) -> np.ndarray:
    sigma = FWHM_TO_SIGMA * SPEED_OF_LIGHT_KMS * np.sqrt(1 / 7000**2 - 1 / RESOLVING_POWER**2)
    return truth.spectra(sigma / BROADENING_TO_SIGMA)


def cores(truth: Truth, random: np.random.Generator) -> np.ndarray:
    flux = truth.spectra()
    for place in (wavelength for species, wavelength, _ in LINES if species == "Ca II"):
        depth = 1 - flux[:, [np.abs(WAVELENGTH - place).argmin()]]
        flux = flux + 0.4 * depth * np.exp(-0.5 * ((WAVELENGTH - place) / CORE) ** 2)
    return flux


def double(truth: Truth, random: np.random.Generator) -> np.ndarray:
    flux = truth.spectra()
    other = shift_velocity(flux[truth.companions()], np.full(len(flux), 60.0))
    return (flux + 0.5 * other) / 1.5


def fringes(truth: Truth, random: np.random.Generator) -> np.ndarray:
    phase = random.uniform(0, 2 * np.pi, (len(truth.labels), 1))
    return truth.spectra() * (1 + 0.02 * np.sin(2 * np.pi * WAVELENGTH + phase))


KINDS: dict[str, Callable[[Truth, np.random.Generator], np.ndarray]] = {
    "normal": lambda truth, random: truth.spectra(),
    **{one.__name__: one for one in (continuum, shift, resolution, cores, double, fringes)},
}


@dataclass
class OneLimit:
    """The 99 % of the validation stars as they are, for stars of any S/N."""

    distance: float
    chi2: float

    @classmethod
    def measured(cls, validation: Reading) -> "OneLimit":
        return cls(*(float(np.nanquantile(values, NORMAL)) for values in (validation.distance, validation.chi2)))

    def flags(self, reading: Reading) -> np.ndarray:
        """Whether each flag is set, and either [3, n]."""
        return _with_either(reading.distance > self.distance, reading.chi2 > self.chi2)


def flags(calibration: Calibration, reading: Reading, has_error: bool) -> np.ndarray:
    """Whether each flag is set, and either [3, n]."""
    distance, misfit = calibration.quality_scores(reading, has_error)
    return _with_either(distance > 1, misfit > 1)


def _with_either(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.stack([one, other, one | other])


def measure(model: TrainedModel, run: Run, n: int, levels: list[float], seed: int) -> dict[bool, np.ndarray]:
    """Percentages [kinds, levels, before and after, 3 flags] with errors (True) and without (False)."""
    stars = load_stars(run)
    with Survey(stars.path or "") as survey:
        if "true_teff" not in survey.columns or not np.array_equal(survey.wavelength, WAVELENGTH):
            raise SpectangleError(f"{run.path} was not trained on the embedded survey, whose true spectra this needs.")
        flux, error = survey.flux(), survey.flux_error()
        columns = {name: survey.column(name) for name in ("vbroad", "radial_velocity_residual")}
        labels = np.stack([survey.column(f"true_{name}") for name in LABELS], axis=1)
    assert error is not None and model.calibration is not None
    rows, held_out = stars.test.rows[:n], stars.validation
    truth = Truth(labels[rows], *(values[rows] for values in columns.values()))
    before = {
        known: OneLimit.measured(
            read_spectra([model], flux[held_out.rows], error[held_out.rows] if known else None, held_out.source_id)
        )
        for known in (True, False)
    }
    result = {known: np.empty((len(KINDS), len(levels), 2, 3)) for known in before}
    for i, spoil in enumerate(KINDS.values()):
        for j, snr in enumerate(levels):
            random = np.random.default_rng([seed, i, j])
            clean = spoil(truth, random).astype(np.float32)
            seen, noise = observe_stars(clean, np.full(len(clean), snr), truth.velocity, random)
            for known, values in result.items():
                reading = read_spectra([model], seen, noise if known else None, stars.test.source_id[:n])
                for k, found in enumerate((before[known].flags(reading), flags(model.calibration, reading, known))):
                    values[i, j, k] = 100 * (found if i == 0 else ~found).mean(axis=1)
    return result


def show(title: str, values: np.ndarray, levels: list[float]) -> None:
    """Print percentages [kinds, levels, before and after]."""
    print(f"\n{title}: % false alarms of normal, % missed of the others; one limit -> limits by S/N\n")
    print("| S/N | " + " | ".join(f"{level:g}" for level in levels) + " |\n|---|" + "---|" * len(levels))
    for kind, row in zip(KINDS, values, strict=True):
        print(f"| {kind} | " + " | ".join(f"{before:.1f} -> {after:.1f}" for before, after in row) + " |")


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    levels = [float(value) for value in options.get("snr", "20,40,80,200,400").split(",")]
    result = measure(
        load(options["run"]), Run(options["run"]), int(options.get("n", 3000)), levels, int(options.get("seed", 0))
    )
    for known, words in ((True, "spectra with errors"), (False, "spectra without errors")):
        for k, flag in enumerate(FLAGS):
            show(f"{words}, {flag}", result[known][..., k], levels)


if __name__ == "__main__":
    try:
        main()
    except SpectangleError as error:
        sys.exit(f"error: {error}")
