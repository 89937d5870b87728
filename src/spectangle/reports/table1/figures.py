"""The figures of the report on Table 1: Figs. 8-10 of the paper, and those that show what the numbers mean.

Each comes with its name and a caption; the first run of each representation that can be read is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence

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

__all__ = ["report_figures"]

MOST_PAIRS = 3  # beside the pure latent: each has figures of its own


def report_figures(
    table: Table1, runs: Mapping[Representation, Sequence[Run]], tsne_stars: int = 3000
) -> Iterator[tuple[str, Figure, str]]:
    """Figures 8-10 of the paper and those that prove the rest, from the first seed of each representation: the paper's
    three, or where a survey has other labels, the pure latent and those that keep some labels and lose others.
    """
    others = [one for one in runs if one != PURE]
    paper = [one for one in (FIRST, SECOND) if one in runs]
    pairs = paper or [one for one in others if is_pair(one)][:MOST_PAIRS] or others[:MOST_PAIRS]
    wanted = [one for one in (PURE, *pairs) if one in runs]
    chosen = {one: run for one in wanted if (run := _readable(table, one, runs[one])) is not None}
    if chosen:
        try:
            data = load_stars(next(iter(chosen.values())))
        except SpectangleError as error:
            table.notes.append(f"Without the survey there are only the figures of the numbers: {error}")
        else:
            seen = {one: read_test_stars(run, load_autoencoder(run), data, 13000) for one, run in chosen.items()}
            yield from _maps(data, seen, tsne_stars)
            pca = next((one for one in table.representations if one.key == "pca"), None)
            yield from _labels_read(data, seen, chosen.get(PURE) if pca else None)
            yield from _latents(data, seen, chosen)
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


def _survey(data: SpectraDataModule) -> Iterator[tuple[str, Figure, str]]:
    """Figs. 3-5 of the paper, from the stars of all three splits."""
    values = np.concatenate([stars.labels.numpy() for stars in (data.train, data.validation, data.test)])
    labels = {name: values[:, i] for i, name in enumerate(data.labels)}
    yield (
        "survey_labels",
        figures.label_figure(labels, data.units),
        f"Fig. 3 of the paper: labels of the {len(values):,} stars of this survey.",
    )
    words = {
        "logg": ("survey_kiel", "Fig. 4: Kiel diagram of the survey."),
        "alpha_fe": ("survey_abundances", "Fig. 5: chemical diagram of the survey."),
    }
    for x, y, colour in figures.diagram_axes(labels):
        name, caption = words[y]
        yield name, figures.diagram_figure(labels, data.units, x, y, colour), caption


def _maps(
    data: SpectraDataModule, seen: Mapping[Representation, ReadStars], n: int
) -> Iterator[tuple[str, Figure, str]]:
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
        figure = figures.map_figure(
            planes, labels, any_seen.units, groups, f"{one.title}: t-SNE of {len(rows):,} test stars"
        )
        caption = (
            f"Fig. 8 of the paper, {one.title.lower()}. The axes of t-SNE have no meaning; the number is how well "
            "a label is read from the "
            "ten nearest stars in the plane. Compare the lost labels with their population floor in the table: "
            "kept labels imply that much."
        )
        yield f"tsne_{one.key}{'_pair' if one.of_the_paper else ''}", figure, caption


def _labels_read(
    data: SpectraDataModule, seen: Mapping[Representation, ReadStars], components_of: Run | None
) -> Iterator[tuple[str, Figure, str]]:
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
        yield (
            "kiel_chemical",
            figures.diagrams_figure(first.catalogue, columns, first.units),
            "Figs. 9 and 10 of the paper: Kiel and chemical diagrams of the test stars, coloured by the catalogue.",
        )
    for one, look_ in seen.items():
        yield (
            f"predicted_{one.key}",
            figures.prediction_figure(look_.predicted, look_.catalogue, look_.units, f"Read from: {one.title.lower()}"),
            "",
        )
    snr = signal_to_noise(data, first.rows)
    if snr is not None and np.isfinite(snr).sum() > 50:
        sources = {"spectra": first.spectra_predicted} if first.spectra_predicted else {}
        sources |= {one.title: look_.predicted for one, look_ in seen.items()}
        if components_of is not None:
            sources |= read_by_baseline(components_of, "pca", first.rows)
        residuals = {
            word: {name: found[name] - first.catalogue[name] for name in found} for word, found in sources.items()
        }
        caption = "Mean absolute residual against S/N, in bins of equally many test stars, with standard errors"
        limit = limit_residuals(data, first.rows)
        caption += "; the limit is what the best possible reader of these spectra would have." if limit else "."
        yield "residual_snr", figures.noise_residual_figure(residuals, snr, first.units, limit=limit), caption


def _latents(
    data: SpectraDataModule, seen: Mapping[Representation, ReadStars], runs: Mapping[Representation, Run]
) -> Iterator[tuple[str, Figure, str]]:
    truth = np.stack(list(next(iter(seen.values())).catalogue.values()), axis=1)
    matrices = {one.title: figures.mutual_information(look_.latent, truth) for one, look_ in seen.items()}
    caption = (
        "What each latent dimension alone knows of each label. Dimensions are sorted by the label that they know most "
        "about."
    )
    yield "information", figures.information_figure(matrices, data.labels), caption
    one = next((one for one in seen if is_pair(one)), next(iter(seen)))
    drawn = reconstructions(load_autoencoder(runs[one]), data, seen[one])
    yield (
        "reconstruction",
        figures.reconstruction_figure(**drawn, title=f"Reconstruction: {one.title.lower()}"),
        "",
    )


def _frontier(runs: Mapping[Representation, Sequence[Run]]) -> Iterator[tuple[str, Figure, str]]:
    """One point per run that keeps some labels and loses others."""
    if points := frontier_points((run for members in runs.values() for run in members), "test"):
        caption = (
            f"Erasure against retention, {len(points)} runs, test stars. At 1 the kept labels are read as well as "
            "from the spectra; "
            "at 0 nothing is left of the others beyond what the population implies."
        )
        yield "frontier", draw(points), caption
