"""Figures: they show the numbers that they are given, in the orientation that astronomers expect."""

import json
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from commands import Command
from matplotlib.figure import Figure

from spectangle import figures
from spectangle.data.load import load_stars
from spectangle.evaluation.run_figures import RunFigures, draw_run
from spectangle.figures.latent import mutual_information
from spectangle.model.load import load_autoencoder
from spectangle.reports.table1.collect import collect
from spectangle.reports.table1.figures import report_figures
from spectangle.runs.folder import Run

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
N = 300


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    centre, spread = (5000, 3, -0.1, 0.05), (600, 1, 0.3, 0.1)
    return {name: c + s * random.normal(size=N) for name, c, s in zip(UNITS, centre, spread, strict=True)}


@pytest.mark.filterwarnings("error")
def test_a_label_that_no_star_has_is_drawn_without_a_warning(labels):
    """A survey of spectra that nobody labelled."""
    figures.label_figure(labels | {"teff": np.full(N, np.nan)}, UNITS).draw_without_rendering()


def every_figure(labels: dict[str, np.ndarray]):
    random = np.random.default_rng(1)
    planes = {"spectra": random.normal(size=(N, 2)), "latent": random.normal(size=(N, 2))}
    grid, flux = np.linspace(846, 870, 60), random.normal(1, 0.02, size=(2, 60))
    residuals = {"latent": {name: random.normal(size=N) for name in labels}}
    latent = random.normal(size=(N, 5))
    yield figures.label_figure(labels, UNITS)
    yield figures.label_figure(labels, UNITS, np.where(np.arange(N) % 2, "APOGEE", "GALAH"))
    for x, y, colour in figures.diagram_axes(labels):
        yield figures.diagram_figure(labels, UNITS, x, y, colour)
    yield figures.map_figure(
        planes, labels, UNITS, {"entangled": ["teff", "logg"], "disentangled": ["m_h", "alpha_fe"]}, "First pair"
    )
    yield figures.diagrams_figure(labels, {"from the latent": [labels, labels]}, UNITS)
    yield figures.prediction_figure(labels, labels, UNITS)
    yield figures.noise_residual_figure(residuals, np.geomspace(10, 200, N), UNITS)
    yield figures.information_figure(
        {"latent": mutual_information(latent, np.stack(list(labels.values()), axis=1))}, list(labels)
    )
    yield figures.frontier_figure(
        np.array([0.9, 1.1, 1.0]), np.array([0.3, 0.02, 0.1]), ["First pair", "First pair", "Second pair"]
    )
    yield figures.reconstruction_figure(grid, flux, flux + 0.01, ["a", "b"], np.full_like(flux, 0.02))


def test_every_figure_is_drawn_without_a_warning(labels, tmp_path, recwarn):
    for i, figure in enumerate(every_figure(labels)):
        assert isinstance(figure, Figure)
        pdf, png = figures.save(figure, tmp_path / f"{i}", dpi=40)
        assert pdf.read_bytes()[:4] == b"%PDF" and png.read_bytes()[1:4] == b"PNG"
    ours = [
        warning for warning in recwarn if warning.category is not ResourceWarning
    ]  # that one is garbage of other tests, collected here
    assert not [str(warning.message) for warning in ours if "matplotlib" in str(warning.filename)]
    assert not list(tmp_path.glob("*.part"))


def test_the_same_numbers_give_the_same_file(labels, tmp_path):
    one, two = (
        figures.save(figures.diagram_figure(labels, UNITS, "teff", "logg", "m_h"), tmp_path / name) for name in "ab"
    )
    assert one[0].read_bytes() == two[0].read_bytes()


def test_hot_stars_are_left_and_giants_on_top(labels):
    kiel = figures.diagram_figure(labels, UNITS, "teff", "logg", "m_h").axes[0]
    assert kiel.xaxis_inverted() and kiel.yaxis_inverted()
    abundances = figures.diagram_figure(labels, UNITS, "m_h", "alpha_fe", "teff").axes[0]
    assert not abundances.xaxis_inverted() and not abundances.yaxis_inverted()
    panels = figures.diagrams_figure(labels, {"from the latent": [labels, labels]}, UNITS).axes
    assert [axes.xaxis_inverted() for axes in panels[:2]] == [True, True] and "[K]" in panels[0].get_xlabel()


@pytest.mark.parametrize(
    ("labels", "diagrams"),
    [
        (("teff", "logg", "m_h", "alpha_fe"), [("teff", "logg", "m_h"), ("m_h", "alpha_fe", "teff")]),
        (("logg", "teff", "fe_h"), [("teff", "logg", "fe_h")]),
        (("teff", "logg"), [("teff", "logg", "")]),
        (("fe_h", "alpha_fe", "vsini"), [("fe_h", "alpha_fe", "")]),
        (("vsini", "c_fe", "age"), []),
    ],
)
def test_diagrams_are_those_whose_labels_a_survey_has(labels, diagrams):
    assert figures.diagram_axes(labels) == diagrams


def test_a_label_of_hardly_a_star_has_no_line_against_noise():
    values = {"teff": np.ones(N), "age": np.full(N, np.nan)}
    figure = figures.noise_residual_figure({"latent": values}, np.geomspace(10, 200, N), {"teff": "K", "age": "Gyr"})
    assert [axes.axison for axes in figure.axes] == [True, False]


def test_every_label_has_a_panel_whatever_it_is_called_and_however_many_there_are():
    """Predicted against catalogue: also of stars that lack a label, whose panel says so by their absence."""
    random = np.random.default_rng(0)
    names = ["teff", "logg", "c_fe", "vsini", "age", "mass", "radius"]
    labels = {name: random.normal(size=N) for name in names}
    labels["age"][:200] = np.nan
    units = dict.fromkeys(names, "") | {"vsini": "km/s"}
    figure = figures.prediction_figure(labels, labels, units)
    shown = {axes.get_title().split("\n")[0]: axes for axes in figure.axes if axes.get_title()}
    assert list(shown) == [figures.symbol(name) for name in names] and "[C/Fe]" in shown
    assert all("MAE 0.000" in axes.get_title() and not axes.texts for axes in shown.values())  # words beside the stars
    assert [np.size(shown[name].lines[0].get_xdata()) for name in ("vsini", "age")] == [N, N - 200]
    assert figure.get_size_inches()[0] < 20 and any("vsini [km/s]" in axes.get_xlabel() for axes in figure.axes)
    one = figures.prediction_figure({"age": labels["age"]}, {"age": labels["age"]}, units)
    assert len(one.axes) == 2
    groups = {"entangled": names[:1], "disentangled": names[1:]}
    planes = {"latent": random.normal(size=(N, 2))}
    coloured = figures.map_figure(planes, labels, units, groups)
    assert sum(1 for axes in coloured.axes if "neighbours" in axes.get_title()) == len(names)


def test_stars_beyond_a_panel_are_counted_and_stand_at_its_edge():
    """The worst fell out of the panel without a mark, and the MAE above counted them."""
    random = np.random.default_rng(0)
    truth = random.normal(5000, 500, 600)
    found = truth + random.normal(0, 50, 600)
    found[:2] += (3000, -4000)
    for axes in figures.prediction_figure({"teff": found}, {"teff": truth}, UNITS).axes:
        low, high = axes.get_ylim()
        marks = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() in "^v<>"}
        assert axes.get_title(loc="right") == "2 outside"
        assert marks == {"^": [[truth[0], high]], "v": [[truth[1], low]]}
    close = figures.prediction_figure({"teff": truth}, {"teff": truth}, UNITS).axes[1]
    assert not close.get_title(loc="right")


def test_neighbours_read_a_gradient_and_no_confetti():
    random = np.random.default_rng(0)
    points = random.uniform(size=(800, 2))
    assert figures.neighbour_r2(points, points[:, 0]) > 0.95
    assert figures.neighbour_r2(points, random.normal(size=800)) < 0.05


def test_a_plane_keeps_clusters_apart():
    random = np.random.default_rng(0)
    group = np.arange(120) % 2
    found = figures.plane(random.normal(size=(120, 60)) + 8 * group[:, None])
    assert found.shape == (120, 2) and figures.neighbour_r2(found, group.astype(float)) > 0.9


def test_mutual_information_against_known_values():
    random = np.random.default_rng(0)
    x = random.normal(size=20000)
    y = 0.8 * x + 0.6 * random.normal(size=20000)
    found = mutual_information(np.c_[x, x**3, random.normal(size=20000)], np.c_[x, y], bins=12)
    assert found[0, 0] == pytest.approx(np.log(12), abs=0.01)
    assert found[1, 0] == pytest.approx(found[0, 0], abs=1e-6)  # monotone changes do not matter
    assert found[0, 1] == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.05)  # correlated normal variables
    assert found[2].max() < 0.005


@pytest.mark.parametrize("n", [40, 118, 1000])
def test_mutual_information_of_few_stars_is_not_noise(n):
    random = np.random.default_rng(1)
    x = random.normal(size=n)
    found = mutual_information(np.c_[x, random.normal(size=(n, 20))], x[:, None])
    assert found[1:].mean() < 0.08 and found[0, 0] > 1


def test_a_run_gets_its_figures_when_it_ends(toy_runs, tmp_path):
    shutil.copytree(toy_runs[0] / "regressors", tmp_path / "regressors")
    run = Run(toy_runs[0])
    RunFigures(str(tmp_path)).on_fit_end(
        SimpleNamespace(checkpoint_callback=None, datamodule=load_stars(run)), load_autoencoder(run)
    )  # pyright: ignore
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {
        "predicted.pdf",
        "predicted.png",
        "kiel_chemical.png",
        "information.png",
        "reconstruction.png",
        "tsne.png",
    } <= names


def test_figures_can_be_drawn_again(toy_runs, monkeypatch):
    monkeypatch.setattr("spectangle.evaluation.run_figures.save", lambda figure, path: [path])
    always = {"predicted", "kiel_chemical", "information", "reconstruction"}
    assert {path.name for path in draw_run(Run(toy_runs[0]), max_stars=40)} == always | {"tsne"}
    assert {path.name for path in draw_run(Run(toy_runs[0]), max_stars=40, tsne_stars=0)} == always


def test_figures_of_runs_whose_survey_was_moved(toy_runs, toy_survey, tmp_path, monkeypatch, capsys):
    """The sentence asked for a key that the command did not have."""
    run, moved = tmp_path / "sweep" / "run", tmp_path / "moved.h5"
    shutil.copytree(toy_runs[0], run, ignore=shutil.ignore_patterns("figures"))
    shutil.copyfile(toy_survey, moved)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["survey"]["path"] = str(tmp_path / "gone.h5")
    (run / "manifest.json").write_text(json.dumps(manifest))
    command = Command(monkeypatch, capsys)
    code, _, errors = command("report", "kind=figures", f"runs=[{run}]")
    assert code == 1 and "say where it is: survey=FILE" in errors
    code, printed, errors = command("report", "kind=figures", f"runs=[{run}]", f"survey={moved}")
    assert code == 0 and (run / "figures" / "predicted.png").is_file(), errors
    drawn = [one.name for one in report_figures(*collect(run.parent), tsne_stars=30, survey=moved)]
    assert "residual_snr" in drawn and "survey_labels" in drawn


def test_a_figure_that_fails_costs_a_sentence_not_the_run(tmp_path, caplog):
    callback = RunFigures(str(tmp_path))
    trainer = SimpleNamespace(checkpoint_callback=None, datamodule=None)
    with caplog.at_level(logging.WARNING):
        callback.on_fit_end(trainer, SimpleNamespace(pack=None))  # pyright: ignore
    assert "could not be drawn" in caplog.text and "time/figures" in callback.metrics


def test_a_run_of_a_pack_draws_only_if_asked(toy_runs, tmp_path, caplog):
    shutil.copytree(toy_runs[0] / "regressors", tmp_path / "regressors")
    run = Run(toy_runs[0])
    trainer, model = SimpleNamespace(checkpoint_callback=None, datamodule=load_stars(run)), load_autoencoder(run)
    model.pack = SimpleNamespace(in_company=True)
    with caplog.at_level(logging.INFO):
        RunFigures(str(tmp_path)).on_fit_end(trainer, model)  # pyright: ignore
    assert f"spectangle report kind=figures runs=[{tmp_path}] draws them" in caplog.text
    assert not (tmp_path / "figures").exists()
    RunFigures(str(tmp_path), in_packs=True).on_fit_end(trainer, model)  # pyright: ignore
    assert (tmp_path / "figures" / "predicted.png").is_file()
    shutil.rmtree(tmp_path / "figures")
    model.pack = SimpleNamespace(in_company=False)  # a run alone on a GPU
    RunFigures(str(tmp_path)).on_fit_end(trainer, model)  # pyright: ignore
    assert (tmp_path / "figures" / "predicted.png").is_file()
