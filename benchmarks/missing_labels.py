"""What missing labels cost: the embedded survey, some of whose training stars lose labels on purpose.

    python benchmarks/missing_labels.py --out runs/missing

For each case the first pair is trained twice: on all stars, and on those that have every label. All are tested on the
same stars, which keep their labels; what comes after the options goes on to the training. Finished runs are not
trained again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter

CASES = {"alpha_fe of half of the stars": (0.5, ["alpha_fe"]), "every label of 80 % of the stars": (0.8, None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/missing"), help="folder of surveys and runs")
    parser.add_argument("--stars", type=int, default=64305, help="of the survey")
    parser.add_argument("--lambdas", default="first_pair", help="which labels are kept and lost")
    options, overrides = parser.parse_known_args()
    whole = EmbeddedSurveyDataModule(n_stars=options.stars)
    whole.setup()
    name = options.lambdas
    runs = [("all labels", train(options.out / f"{name}-whole", str(whole.path), name, overrides))]
    for number, (case, (fraction, labels)) in enumerate(CASES.items()):
        path = options.out / f"missing-{number}.h5"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            spoil(whole, path, fraction, labels)
        out = options.out / f"{name}-{number}"
        runs.append((f"without {case}", train(Path(f"{out}-all"), str(path), name, overrides)))
        only = [*overrides, "labels.require=all"]
        runs.append(("... and these stars left out", train(Path(f"{out}-complete"), str(path), name, only)))
    show(runs, whole.labels)


def spoil(whole: EmbeddedSurveyDataModule, path: Path, fraction: float, labels: list[str] | None) -> None:
    """Copy a survey; some training and validation stars lose labels."""
    random = np.random.default_rng(7)
    rows = np.concatenate([whole.train.rows, whole.validation.rows])
    rows = rows[random.random(len(rows)) < fraction]
    with Survey(str(whole.path)) as survey:
        values = {name: survey.label(name) for name in survey.labels}
        for name in labels or survey.labels:
            values[name][rows] = np.nan
        errors = {name: survey.label_error(name) for name in survey.labels}
        columns = {name: survey.column(name) for name in survey.columns}
        units = {name: survey.unit(name) for name in survey.labels}
        with SurveyWriter(path, survey.wavelength, units, "embedded survey without some labels", "none") as writer:
            for a, b in survey.chunks():
                writer.append(
                    survey.source_id[a:b],
                    survey.flux(a, b),
                    {name: column[a:b] for name, column in values.items()},
                    survey.flux_error(a, b),
                    {name: column[a:b] for name, column in errors.items() if column is not None},
                    {name: column[a:b] for name, column in columns.items()},
                )


def train(folder: Path, survey: str, lambdas: str, overrides: list[str]) -> Run:
    """Train in a folder, unless it is done."""
    command = [sys.executable, "-m", "spectangle", "train", "data=survey", f"data.path={survey}", f"lambdas={lambdas}"]
    subprocess.run([*command, f"hydra.run.dir={folder}", "callbacks.figures=null", *overrides], check=True)
    return Run(folder)


def show(runs: list[tuple[str, Run]], labels: tuple[str, ...]) -> None:
    """MAE from the latent, excess of the lost labels, and how many training stars there were."""
    table = Table(title="MAE from the latent (excess of R2 of a lost label), on the same test stars")
    for name in ("trained on", *labels):
        table.add_column(name, no_wrap=True)
    for case, run in runs:
        cells = []
        for label in labels:
            mae, excess = run.metrics[f"test/latent/{label}/mae"], run.metrics.get(f"excess/{label}")
            cells.append(f"{mae:.4g}" + ("" if excess is None else f" ({excess:+.3f})"))
        table.add_row(case, *cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
