"""Two surveys joined: a fifth of the embedded survey's stars seen by another instrument, which the latent is to lose.

    python benchmarks/two_instruments.py --out runs/instruments

The other instrument has half of the resolution and a continuum that is a few per cent off. The labels of its stars are
known (first case), or only those of the test stars, to score them (second case: a survey without labels joins one with
labels). For each case a run that knows nothing of instruments, and one that loses the instrument; both keep all labels
but alpha_fe. Finished runs are not trained again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter1d

from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.data.load import load_stars
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter

SHARE, WIDTH, CONTINUUM = 0.2, 2.0, 0.03  # of the stars; of the further line spread in pixels; off by so much at most
LABELS = {"teff": -1, "logg": -1, "m_h": -1, "alpha_fe": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/instruments"), help="folder of surveys and runs")
    parser.add_argument("--stars", type=int, default=20000, help="of the survey")
    options, overrides = parser.parse_known_args()
    whole = EmbeddedSurveyDataModule(n_stars=options.stars)
    whole.setup()
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(title="MAE on test stars, A | B; probes of the instrument (balanced accuracy)")
    for name in ("labels of B", "the run", *LABELS, "probes", "raw spectra"):
        table.add_column(name, no_wrap=True)
    for labelled in (True, False):
        survey = options.out / f"survey-{'labels' if labelled else 'none'}.h5"
        if not survey.is_file():
            write(whole, survey, labelled)
        for strength, words in ((None, "knows no instruments"), (1.0, "loses the instrument")):
            run = train(options.out / f"{survey.stem}-{words.split()[0]}", survey, strength, overrides)
            table.add_row("known" if labelled else "unknown", words, *cells(run))
    Console(width=150).print(table)


def write(whole: EmbeddedSurveyDataModule, path: Path, labelled: bool) -> None:
    """Copy the survey with a fifth of its stars as the other instrument sees them."""
    random = np.random.default_rng(3)
    with Survey(str(whole.path)) as survey:
        flux, error = survey.flux(), survey.flux_error()
        assert error is not None
        other = random.random(len(survey)) < SHARE
        labels = {name: survey.label(name) for name in survey.labels}
        if not labelled:
            for values in labels.values():
                values[np.setdiff1d(np.flatnonzero(other), whole.test.rows)] = np.nan
        x = np.linspace(-1, 1, survey.n_pixels)
        smooth = gaussian_filter1d(np.nan_to_num(flux[other], nan=1.0), WIDTH, axis=1)
        noise = np.sqrt(1 - (1 / (2 * WIDTH * np.sqrt(np.pi))))  # what smoothing took from it is put back
        usual = np.nanmedian(error[other], axis=1, keepdims=True)  # masked pixels have errors of 10
        smooth += noise * usual * random.standard_normal(smooth.shape)
        tilt, bend = random.normal(CONTINUUM / 2, CONTINUUM / 4, size=(2, other.sum(), 1))
        flux[other] = np.where(np.isnan(flux[other]), np.nan, smooth * (1 + tilt * x + bend * (x**2 - 1 / 3)))
        units = {name: survey.unit(name) for name in labels}
        with SurveyWriter(path, survey.wavelength, units, "embedded survey, two instruments", "none") as writer:
            columns = {"instrument": np.where(other, "B", "A")}
            writer.append(survey.source_id, flux, labels, error, columns=columns)


def train(folder: Path, survey: Path, strength: float | None, overrides: list[str]) -> Run:
    """Train in a folder, unless it is done; strength is the lambda of the instrument."""
    words = [f"lambdas.{name}={value}" for name, value in LABELS.items()]
    words += [] if strength is None else ["labels.attributes=[instrument]", f"lambdas.instrument={strength}"]
    command = [sys.executable, "-m", "spectangle", "train", "data=survey", f"data.path={survey}", *words]
    subprocess.run([*command, f"hydra.run.dir={folder}", "callbacks.figures=null", *overrides], check=True)
    return Run(folder)


def cells(run: Run) -> list[str]:
    """MAE of each label on test stars of either instrument, and what probes read of it."""
    model, data = load_autoencoder(run), load_stars(run)
    found = load_run_regressor(run).predict(model.embed_stars(data.test)) - data.test.labels.numpy()
    with Survey(data.path or "") as survey:
        other = survey.column("instrument")[data.test.rows] == b"B"
    maes = [" | ".join(f"{np.abs(found[rows, i]).mean():.4g}" for rows in (~other, other)) for i in range(len(LABELS))]
    keys = ("probe/instrument/balanced_accuracy", "reference/instrument/balanced_accuracy")
    return maes + ["" if (value := run.metrics.get(key)) is None else f"{value:.3f}" for key in keys]


if __name__ == "__main__":
    main()
