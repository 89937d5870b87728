"""The figures of the report on Table 1: Figs. 8-10 of the paper, and those that show what the numbers mean.

Each comes with its name, a heading and a caption; the first run of each representation that can be read is drawn, and
the captions say which seed that is: the tables have means over seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from spectangle import figures
from spectangle.data.load import load_stars
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.evaluation.at_limit import limit_residuals
from spectangle.evaluation.run_figures import ReadStars, read_test_stars, reconstructions, signal_to_noise
from spectangle.model.load import load_autoencoder
from spectangle.reports.frontier import draw, frontier_points
from spectangle.reports.table1.baselines import read_by_baseline
from spectangle.reports.table1.collect import FIRST, PURE, SECOND, Representation, Table1, is_pair
from spectangle.runs.folder import Run

__all__ = ["ReportFigure", "report_figures"]

MOST_PAIRS = 3  # beside the pure latent: each has figures of its own


class ReportFigure(NamedTuple):
    """A figure of the report: the name of its files, its heading on the page, and a caption that says which stars."""

    name: str
    heading: str
    figure: Figure
    caption: str


def report_figures(
    table: Table1,
    runs: Mapping[Representation, Sequence[Run]],
    tsne_stars: int = 3000,
    survey: str | Path | None = None,
) -> Iterator[ReportFigure]:
    """Figures 8-10 of the paper and those that prove the rest, from the first seed of each representation: the paper's
    three, or where a survey has other labels, the pure latent and those that keep some labels and lose others.
    ``survey`` says where the survey file lies now, if it was moved.
    """
    others = [one for one in runs if one != PURE]
    paper = [one for one in (FIRST, SECOND) if one in runs]
    pairs = paper or [one for one in others if is_pair(one)][:MOST_PAIRS] or others[:MOST_PAIRS]
    wanted = [one for one in (PURE, *pairs) if one in runs]
    chosen = {one: run for one in wanted if (run := _readable(table, one, runs[one])) is not None}
    if chosen:
        try:
            data = load_stars(next(iter(chosen.values())), survey)
        except SpectangleError as error:
            table.notes.append(f"Without the survey there are only the figures of the numbers: {error}")
        else:
            seen = {one: read_test_stars(run, load_autoencoder(run), data, 13000) for one, run in chosen.items()}
            several = max(len(members) for members in runs.values()) > 1
            yield from _maps(data, seen, chosen, tsne_stars, several)
            pca = next((one for one in table.representations if one.key == "pca"), None)
            yield from _labels_read(data, seen, chosen, chosen.get(PURE) if pca else None, several)
            yield from _latents(data, seen, chosen, several)
            yield from _survey(data)
    yield from _frontier(runs)


def _readable(table: Table1, one: Representation, runs: Sequence[Run]) -> Run | None:
    """The first run whose model can be read; a note for each that cannot."""
    for run in runs:
        try:
            load_autoencoder(run)
            return run
        except SpectangleError as error:
            table.notes.append(f"No figures of {one.title} from {run.path.name}: {error}")
    return None


def seeds_in_words(chosen: Mapping[Representation, Run], several: bool) -> str:
    """Of which seed the figures are, and that the tables are of several, if they are."""
    seeds = {one.title: _seed(run) for one, run in chosen.items()}
    same = len(set(seeds.values())) == 1
    words = next(iter(seeds.values())) if same else ", ".join(f"{title}: {seed}" for title, seed in seeds.items())
    return f"{words[:1].upper()}{words[1:]}" + ("; the tables have means over seeds." if several else ".")


def _seed(run: Run) -> str:
    return f"seed {run.config.get('seed', 0)}"


def _survey(data: SpectraDataModule) -> Iterator[ReportFigure]:
    """Figs. 3-5 of the paper, from the stars of all three splits."""
    values = np.concatenate([stars.labels.numpy() for stars in (data.train, data.validation, data.test)])
    labels = {name: values[:, i] for i, name in enumerate(data.labels)}
    stars = f"the {len(values):,} training, validation and test stars"
    figure = figures.label_figure(labels, data.units)
    yield ReportFigure("survey_labels", "Labels of the survey", figure, f"Fig. 3 of the paper: labels of {stars}.")
    words = {
        "logg": ("survey_kiel", "Kiel diagram of the survey", "Fig. 4"),
        "alpha_fe": ("survey_abundances", "Chemical diagram of the survey", "Fig. 5"),
    }
    for x, y, colour in figures.diagram_axes(labels):
        name, heading, number = words[y]
        figure = figures.diagram_figure(labels, data.units, x, y, colour)
        yield ReportFigure(name, heading, figure, f"{number} of the paper: catalogue labels of {stars}.")


def _maps(
    data: SpectraDataModule,
    seen: Mapping[Representation, ReadStars],
    runs: Mapping[Representation, Run],
    n: int,
    several: bool,
) -> Iterator[ReportFigure]:
    pairs = [one for one in seen if is_pair(one)]
    if not pairs or n < 20:
        return
    any_seen = seen[pairs[0]]
    rows = np.sort(np.random.default_rng(1).permutation(len(any_seen.rows))[:n])
    spectra = figures.plane(data.test.flux[any_seen.rows[rows]].numpy())
    labels = {name: values[rows] for name, values in any_seen.catalogue.items()}
    for one in pairs:
        planes = {"spectra": spectra, "latent": figures.plane(seen[one].latent[rows])}
        neutral = [name for name in labels if name not in (*one.entangled, *one.disentangled)]
        read = one.of_labels(data.labels)
        groups = {"entangled": read.entangled, "neutral": neutral, "disentangled": read.disentangled}
        groups = {word: names for word, names in groups.items() if names}
        which = f"{one.title}, {_seed(runs[one])}"
        figure = figures.map_figure(
            planes, labels, any_seen.units, groups, f"{which}: t-SNE of {len(rows):,} test stars"
        )
        caption = (
            f"Fig. 8 of the paper. {which}, {len(rows):,} test stars. The axes of t-SNE have no meaning; the number is "
            "how well a label is read from the ten nearest stars in the plane. Compare the lost labels with their "
            "population floor in the table: kept labels imply that much."
            f"{' The tables have means over seeds.' if several else ''}"
        )
        name = f"tsne_{one.key}{'_pair' if one.of_the_paper else ''}"
        yield ReportFigure(name, f"t-SNE: {_lower(one.title)}", figure, caption)


def _labels_read(
    data: SpectraDataModule,
    seen: Mapping[Representation, ReadStars],
    runs: Mapping[Representation, Run],
    components_of: Run | None,
    several: bool,
) -> Iterator[ReportFigure]:
    """Diagrams, residuals, and residuals against S/N; in the last also what principal components tell, with the
    regressor of a pure run.
    """
    first = next(iter(seen.values()))
    columns: dict[str, list] = {"from the spectra": [first.spectra_predicted] * 2} if first.spectra_predicted else {}
    if PURE in seen:
        columns["from the pure latent"] = [seen[PURE].predicted] * 2
    if FIRST in seen and SECOND in seen:
        columns["from the latent that keeps them"] = [seen[FIRST].predicted, seen[SECOND].predicted]
        columns["from the latent that lost them"] = [seen[SECOND].predicted, seen[FIRST].predicted]
    else:
        columns |= {one.title: [look.predicted] * 2 for one, look in seen.items() if one != PURE}
    if figures.diagram_axes(first.catalogue):
        figure = figures.diagrams_figure(first.catalogue, columns, first.units)
        caption = (
            "Figs. 9 and 10 of the paper: Kiel and chemical diagrams of the test stars, with labels of the catalogue "
            f"and those that the regressor reads, coloured by the catalogue. {seeds_in_words(runs, several)}"
        )
        yield ReportFigure("kiel_chemical", "Kiel and chemical diagrams", figure, caption)
    for one, look_ in seen.items():
        which = f"{one.title}, {_seed(runs[one])}"
        title = f"{which}: labels of {len(look_.rows):,} test stars"
        figure = figures.prediction_figure(look_.predicted, look_.catalogue, look_.units, title)
        caption = (
            "Labels of test stars as the regressor reads them, against the catalogue. "
            f"{seeds_in_words({one: runs[one]}, several)}"
        )
        yield ReportFigure(f"predicted_{one.key}", f"Labels read from: {_lower(one.title)}", figure, caption)
    snr = signal_to_noise(data, first.rows)
    if snr is not None and np.isfinite(snr).sum() > 50:
        sources = {"spectra": first.spectra_predicted} if first.spectra_predicted else {}
        sources |= {one.title: look_.predicted for one, look_ in seen.items()}
        if components_of is not None:
            sources |= read_by_baseline(components_of, "pca", first.rows, data.path)
        residuals = {
            word: {name: found[name] - first.catalogue[name] for name in found} for word, found in sources.items()
        }
        caption = "Mean absolute residual against S/N, in bins of equally many test stars, with standard errors"
        limit = limit_residuals(data, first.rows)
        caption += "; the limit is what the best possible reader of these spectra would have." if limit else "."
        figure = figures.noise_residual_figure(residuals, snr, first.units, limit=limit)
        yield ReportFigure("residual_snr", "Residual against S/N", figure, f"{caption} {seeds_in_words(runs, several)}")


def _latents(
    data: SpectraDataModule, seen: Mapping[Representation, ReadStars], runs: Mapping[Representation, Run], several: bool
) -> Iterator[ReportFigure]:
    truth = np.stack(list(next(iter(seen.values())).catalogue.values()), axis=1)
    matrices = {one.title: figures.mutual_information(look_.latent, truth) for one, look_ in seen.items()}
    caption = (
        "What each latent dimension alone knows of each label, of test stars. Dimensions are sorted by the label that "
        f"they know most about. {seeds_in_words(runs, several)}"
    )
    figure = figures.information_figure(matrices, data.labels)
    yield ReportFigure("information", "Latent dimension by label", figure, caption)
    one = next((one for one in seen if is_pair(one)), next(iter(seen)))
    which = f"{one.title}, {_seed(runs[one])}"
    drawn = reconstructions(load_autoencoder(runs[one]), data, seen[one])
    figure = figures.reconstruction_figure(**drawn, title=f"{which}: test stars")
    caption = (
        f"Spectra of a few test stars, what the decoder makes of their latents and labels, and the difference. {which}."
    )
    yield ReportFigure("reconstruction", f"Reconstruction: {_lower(one.title)}", figure, caption)


def _frontier(runs: Mapping[Representation, Sequence[Run]]) -> Iterator[ReportFigure]:
    """One point per run that keeps some labels and loses others; no front: they are seeds of few configurations."""
    if points := frontier_points((run for members in runs.values() for run in members), "test"):
        caption = (
            f"One point for each run that keeps some labels and loses others ({len(points)}, all seeds), test stars. "
            "To the right: mean absolute error of the kept labels over that from the spectra, so that at 1 they are "
            "read as well as from the spectra. Upwards: the largest excess of a lost label, R2 beyond its population "
            "floor, so that at 0 nothing is left of it beyond what the kept labels imply. The shaded corner is the aim."
        )
        heading = "What disentangling costs the entangled labels"
        yield ReportFigure("frontier", heading, draw(points, front=False), caption)


def _lower(title: str) -> str:
    """A title within a line; names such as PCA stay."""
    return title[:1].lower() + title[1:]
