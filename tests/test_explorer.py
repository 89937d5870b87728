"""explore.py in headless Chromium: saved to one file, and served."""

import base64
import json
import re
import shutil
import threading
import urllib.request
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from browser import AVAILABLE, Browser
from commands import Command
from conftest import UNITS
from sklearn.exceptions import ConvergenceWarning

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import LabelGroups, small_survey_regressor
from spectangle.explorer import make_bundle, save_page
from spectangle.explorer.browser_model import move_arrays, pack, pack_flux, pack_network, pack_steps
from spectangle.explorer.bundle import run_names
from spectangle.explorer.label_words import plain_symbol, short_title, title
from spectangle.explorer.latent_maps import latent_maps
from spectangle.explorer.server import make_server
from spectangle.explorer.star_facts import find_star, star_classes, star_names
from spectangle.inference.load import load
from spectangle.inference.readout import Readout
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.networks import Decoder
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

browser = pytest.mark.browser
needs_chromium = pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
DATA = "const d = Bokeh.documents[0].get_model_by_name('kiel').renderers[0].data_source.data;"
VIEW = (
    "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name(arguments[0]).id), box = "
    "view.el.getBoundingClientRect();"
)
STAR = "Spectangle.state.id"
SEARCH = "Bokeh.documents[0].get_model_by_name('search').value = arguments[0]"
TOLD_NOTHING = "document.getElementById('told-nothing').textContent"
SLIDERS_OFF = "[0, 1, 2, 3].map((k) => Bokeh.documents[0].get_model_by_name(`slider_${k}`).disabled)"


def of_another_kind(path, *arguments, **options):
    """A run whose decoder is told of gaps and of an instrument, and whose labels are read by two groups of networks and
    support vector machines, as with regressor=small.
    """
    model = load(path, *arguments, **options)
    known = {name: model.network.hparams[name] for name in ("n_pixels", "labels", "wavelength", "label_units")}
    torch.manual_seed(0)
    network = DisentanglingAutoencoder(
        **known, latent=4, hidden=(16,), incomplete=["logg"], attributes={"instrument": 3}
    )
    flux, codes = 0.8 + 0.05 * torch.randn(60, 40), (torch.arange(60) % 5 // 2).float()[:, None]
    scale = torch.tensor([700.0, 1, 0.3, 0.1])
    network.calibrate(flux, torch.cat([model.network.label_scaler.mean + torch.randn(60, 4) * scale, codes], dim=1))
    random = np.random.default_rng(0)
    z = random.normal(size=(60, 4))
    labels = np.column_stack([5100 + 700 * z[:, 0], 3 + z[:, 1], np.sin(z[:, 2]), z[:, 3] * z[:, 0]])
    labels[:20, 1] = np.nan
    fitted = LabelGroups(small_survey_regressor((8,), members=2, max_iter=20)).fit(z, labels)
    told = {"probe/instrument/balanced_accuracy": 0.4, "probe/instrument/chance": 0.33, "excess/instrument": 0.02}
    metrics = {**model.metrics, **told}
    return replace(model, network=network.eval(), readout=Readout.from_regressor(fitted), metrics=metrics)


@pytest.fixture(scope="module")
def bundle(toy_runs):
    """The first run beside a pure latent."""
    with pytest.MonkeyPatch.context() as patch:
        loads = {toy_runs[0]: load, toy_runs[2]: of_another_kind}
        patch.setattr(
            "spectangle.explorer.bundle.load", lambda path, *rest, **options: loads[path](path, *rest, **options)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return make_bundle(str(toy_runs[0]), compare=str(toy_runs[2]), stars=30, map_stars=60)


@pytest.fixture(scope="module")
def page(bundle, tmp_path_factory):
    """The saved page, open."""
    if not AVAILABLE:
        pytest.skip("needs chromium and chromedriver")
    with opened(bundle, tmp_path_factory.mktemp("explorer")) as window:
        yield window


@contextmanager
def opened(bundle, folder, width=1400):
    path = save_page(bundle, folder / "explorer.html")
    with Browser(width) as window:
        window.open(path.as_uri())
        window.wait("document.body.dataset.ready")
        yield window


@pytest.fixture(scope="module")
def served(toy_runs):
    """The address of a served page of the first run."""
    yield from _serve(lambda: make_bundle(str(toy_runs[0]), stars=5, map_stars=20))


def _serve(make):
    started, shared = threading.Event(), {}

    def work() -> None:
        import asyncio

        asyncio.set_event_loop(asyncio.new_event_loop())
        shared["server"] = make_server(make, port=0)
        shared["server"].start()
        shared["server"].io_loop.add_callback(started.set)
        shared["server"].io_loop.start()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(20)
    yield f"http://localhost:{shared['server'].port}/"
    shared["server"].io_loop.add_callback(shared["server"].io_loop.stop)
    thread.join(10)


@browser
@needs_chromium
def test_a_regular_autoencoder_decodes_the_latent_alone_and_says_so(toy_runs, tmp_path):
    bundle = make_bundle(str(toy_runs[2]), stars=5, map_stars=20)
    model = bundle.models[0]
    z, labels = np.linspace(-1, 1, model.network.encoder.n_outputs), [5100.0, 3.0, -0.1, 0.05]
    with opened(bundle, tmp_path) as page:
        theirs = page.run("return Array.from(Spectangle.decode(0, ...arguments))", z.tolist(), labels)
        assert f"decoder of {toy_runs[2].name} is told no labels" in page.run(f"return {TOLD_NOTHING}")
        assert page.run(f"return {SLIDERS_OFF}") == [True] * 4
    assert model.network.decoder.n_labels == 0
    np.testing.assert_allclose([theirs], model.decode(z[None], np.array([labels])), atol=1e-4)


@browser
@needs_chromium
def test_sliders_move_where_a_decoder_is_told_labels(page):
    assert page.run(f"return {TOLD_NOTHING}") == "" and page.run(f"return {SLIDERS_OFF}") == [False] * 4


@browser
@needs_chromium
def test_the_javascript_decoder_is_torch(page, bundle):
    for r, model in enumerate(bundle.models):
        random = np.random.default_rng(r)
        z = random.normal(size=(5, 4)).astype(np.float32)
        labels = (random.normal(size=(5, 4)) * [700, 1, 0.3, 0.1] + [5100, 3, -0.1, 0.05]).astype(np.float32)
        theirs = [
            page.run("return Array.from(Spectangle.decode(...arguments))", r, a.tolist(), b.tolist())
            for a, b in zip(z, labels, strict=True)
        ]
        np.testing.assert_allclose(theirs, model.decode(z, labels), atol=1e-4)
        read = [
            page.run(
                "return Array.from(Spectangle.readLabels(arguments[0], Float32Array.from(arguments[1])))",
                r,
                one.tolist(),
            )
            for one in z
        ]
        with torch.no_grad():
            expected = model.readout(torch.from_numpy(z)).numpy()
        np.testing.assert_allclose(read, expected, atol=3e-3 * expected.std(axis=0).max())


@browser
@needs_chromium
def test_a_slider_moves_the_spectrum_quickly(page):
    page.run("Spectangle.pressed('reset')")
    before = page.run("return Spectangle.csv()")
    handle = page.run(
        VIEW
        + "const h = view.shadow_el.querySelector('.noUi-handle').getBoundingClientRect(); return [h.x + h.width / "
        "2, h.y + h.height / 2]",
        "slider_2",
    )
    own = page.run("return Spectangle.state.labels[2]")
    page.drag(*handle, handle[0] + 60, handle[1])
    assert page.run("return Spectangle.state.labels[2]") > own
    assert page.run("return Spectangle.csv()") != before
    assert float(page.run("return document.body.dataset.milliseconds")) < 50
    page.run("Spectangle.pressed('reset')")
    assert page.run("return Spectangle.csv()") == before


@browser
@needs_chromium
def test_a_bar_of_the_latent_can_be_dragged_and_undone(page):
    page.run("Spectangle.pressed('reset')")
    where = (
        "return [box.x + view.frame.x_scale.compute(2), box.y + view.frame.y_scale.compute(0), box.y + "
        "view.frame.y_scale.compute(2.5)]"
    )
    x, low, high = page.run(VIEW + where, "latent")
    before = page.run("return Array.from(Spectangle.state.runs[0].z)")
    page.drag(x, low, x, high)
    after = page.run("return Array.from(Spectangle.state.runs[0].z)")
    assert after[2] == pytest.approx(2.5, abs=0.1) and [*after[:2], after[3]] == [*before[:2], before[3]]
    page.run("Spectangle.pressed('reset')")
    assert page.run("return Array.from(Spectangle.state.runs[0].z)") == before


@browser
@needs_chromium
def test_a_star_can_be_clicked_in_both_diagrams_and_searched(page, bundle):
    ids = bundle.payload["stars"]["id"]
    where = (
        DATA + "const [, x, y, i] = arguments; return [box.x + view.frame.x_scale.compute(d[x][i]), box.y + "
        "view.frame.y_scale.compute(d[y][i])]"
    )
    spread = page.run(DATA + "return Array.from(d.x).indexOf(Math.max(...d.x))")
    x, y = page.run(VIEW + where, "kiel", "x", "y", spread)
    page.drag(x, y, x, y, steps=1)
    page.wait(f"{STAR} === '{ids[spread]}'")
    page.run("Spectangle.openTab('map')")
    page.wait("Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name('chart').id).frame.bbox.width > 200")
    leftmost = page.run(DATA + "return Array.from(d.mx).indexOf(Math.min(...d.mx))")
    x, y = page.run(VIEW + where, "chart", "mx", "my", leftmost)
    page.drag(x, y, x, y, steps=1)
    page.wait(f"{STAR} === '{ids[leftmost]}'")
    page.run(SEARCH, ids[3])
    page.wait(f"{STAR} === '{ids[3]}'")
    page.run("Bokeh.documents[0].get_model_by_name('search').value = '12'")
    assert "12 is not one of them" in page.run("return document.getElementById('note').textContent")
    page.run("Spectangle.pressed('other')")
    assert page.run("return Bokeh.documents[0].get_model_by_name('search').value") in ("", page.run(f"return {STAR}"))
    page.run("Spectangle.openTab('star')")


@browser
@needs_chromium
def test_the_map_changes_colour_and_method(page):
    state = DATA + "return [Array.from(d.value).slice(0, 5), Array.from(d.mx).slice(0, 5)]"
    value, x = page.run(state)
    page.run(
        "Bokeh.documents[0].get_model_by_name('colour_by').value = 'm_h'; "
        "Bokeh.documents[0].get_model_by_name('method').active = 1"
    )
    page.wait("document.getElementById('map-colour').textContent === '[M/H] [dex]'")
    other, moved = page.run(state)
    assert other != value and moved != x


@browser
@needs_chromium
def test_two_runs_answer_the_same_sliders(page):
    page.run("Spectangle.pressed('reset'); Bokeh.documents[0].get_model_by_name('slider_2').value = 0.4")
    page.wait("/rms change 0[.]0*[1-9]/.test(document.getElementById('change-0').textContent)")
    data = "return Array.from(Bokeh.documents[0].get_model_by_name(arguments[0]).renderers[1].data_source.data.changed)"
    first, second = (np.array(page.run(data, f"compare_plot_{r}")) for r in (0, 1))
    assert page.run("return document.getElementById('run-0').textContent") == "0 (lambdas=first_pair)"
    assert "2 (lambdas=none)" in page.run("return document.querySelector('[data-pane=compare]').textContent")
    assert np.abs(first - second).max() > 1e-5
    page.run("Spectangle.pressed('reset')")


@browser
@needs_chromium
def test_what_is_saved_is_what_is_shown(page, bundle):
    page.run("Spectangle.pressed('save_png')")
    lines = page.run("return Spectangle.csv()").splitlines()
    assert (
        lines[0].startswith("# source_id")
        and lines[1] == "wavelength_nm,observed,reconstructed,changed"
        and len(lines) == 42
    )
    row = bundle.payload["stars"]["id"].index(page.run(f"return {STAR}"))
    with Survey(bundle.survey) as survey:
        observed = survey.flux()[survey.source_id == int(bundle.payload["stars"]["id"][row])][0]
    np.testing.assert_allclose([float(line.split(",")[1]) for line in lines[2:]], observed, atol=5e-5)


@browser
@needs_chromium
def test_entangled_and_disentangled_labels_differ_in_colour(page):
    colour = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    shown = [page.run(colour, f".knows.{aim} .aim") for aim in ("entangled", "disentangled")]
    plain = page.run("return getComputedStyle(document.documentElement).getPropertyValue('--alone')")
    assert len({*shown, plain}) == 3


@browser
@needs_chromium
def test_the_saved_page_asks_nobody_and_has_no_error(page):
    """Last of the page's tests: everything that was done before counts."""
    assert page.console() == []
    assert all(url.startswith("file:") for url in page.requests())
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")


@browser
@needs_chromium
def test_the_served_page_finds_any_star_of_the_survey(served: str, toy_survey: Path, toy_runs):
    train = load_stars(Run(toy_runs[0])).train
    with Browser(800, 1200) as window:
        window.open(served)
        window.wait("document.body.dataset.ready")
        window.run(SEARCH, str(train.source_id[5]))
        window.wait(f"{STAR} === '{train.source_id[5]}'")
        shown = [float(line.split(",")[1]) for line in window.run("return Spectangle.csv()").splitlines()[2:]]
        np.testing.assert_allclose(shown, train.flux[5].numpy(), atol=5e-5)
        window.run("Bokeh.documents[0].get_model_by_name('search').value = '99'")
        window.wait("document.getElementById('note').textContent.includes('no star 99')")
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert window.console() == []
        host = served.removeprefix("http://")
        assert all(host in url for url in window.requests())


@pytest.fixture(scope="module")
def gaps(toy_runs, toy_survey: Path, tmp_path_factory) -> Path:
    """The survey of the toy runs without Teff and [M/H] of some stars, with one absurd log g, names and instruments."""
    path = tmp_path_factory.mktemp("gaps") / "gaps.h5"
    shutil.copy(toy_survey, path)
    train = load_stars(Run(toy_runs[0])).train
    with h5py.File(path, "r+") as file:
        file["labels/teff"][::3], file["labels/m_h"][::2] = np.nan, np.nan
        file["labels/logg"][train.rows[3]] = 400.0
        file["columns/name"] = np.array([f"HD{row:06d}" for row in range(400)], "S8")
        file["columns/instrument"] = np.array(["", "HARPS", "FEROS", "HARPS"] * 100, "S5")
    return path


@pytest.fixture(scope="module")
def gappy(toy_runs, gaps: Path):
    """Of a run whose network knows an instrument."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        patch.setattr("spectangle.explorer.bundle.load", of_another_kind)
        return make_bundle(str(toy_runs[0]), stars=30, map_stars=60, survey=str(gaps))


def test_labels_that_the_catalogue_lacks_begin_with_what_the_model_reads(gappy, gaps: Path):
    with Survey(gaps) as survey:
        ids, catalogue = survey.source_id, np.stack([survey.label(name) for name in gappy.models[0].labels], axis=1)
    stars = gappy.payload["stars"]
    cases = [(gappy.look_up(str(ids[row])), row) for row in (0, 1, 2, 3)]
    for answer, row in cases:
        with torch.no_grad():
            read = gappy.models[0].readout(torch.from_numpy(_unpacked(answer["latents"][0]).astype(np.float32))).numpy()
        missing = np.isnan(catalogue[row])
        np.testing.assert_array_equal(_unpacked(answer["read"])[0], missing)
        np.testing.assert_allclose(
            _unpacked(answer["labels"])[0], np.where(missing, read[0], catalogue[row]), rtol=1e-5
        )
    assert [answer["classes"]["instrument"] for answer, _ in cases] == ["", "HARPS", "FEROS", "HARPS"]
    rows = [int(np.flatnonzero(ids == int(one))[0]) for one in stars["id"]]
    np.testing.assert_array_equal(_unpacked(stars["read"]), np.isnan(catalogue[rows]))
    assert np.isfinite(_unpacked(stars["labels"])).all() and stars["name"][0] == f"HD{rows[0]:06d}"


def test_what_the_latent_knows_of_attributes_is_told(gappy):
    [one] = gappy.payload["runs"][0]["attributes"]
    assert (one["name"], one["lambda"]) == ("instrument", gappy.models[0].network.adversary.lambdas[-1])
    assert (one["accuracy"], one["chance"], one["excess"], one["spectra"]) == (0.4, 0.33, 0.02, None)


def test_a_slider_spans_all_but_the_outermost_stars(gappy):
    assert gappy.payload["labels"][1]["high"] < 10


@browser
@needs_chromium
def test_a_saved_page_tells_what_was_read_from_what_is_catalogued(gappy, tmp_path: Path):
    read = _unpacked(gappy.payload["stars"]["read"])
    with opened(gappy, tmp_path) as page:
        value, fill = page.run(DATA + "return [Array.from(d.value), Array.from(d.fill)]")
        assert [one is None for one in value] == [one == 0 for one in fill] == list(read[:, 0] > 0)  # coloured by Teff
        key = page.run("return document.getElementById('kiel-key').textContent")
        assert "Hollow: placed by what was read" in key and "Grey: Teff is not in the catalogue" in key
        for row in (int(np.argmax(read[:30, 2] > read[:30, 0])), int(np.argmin(read[:30].sum(axis=1)))):
            page.run(SEARCH, gappy.payload["stars"]["id"][row])
            _is_told_from_the_catalogue(page, read[row] > 0)
        assert page.console() == []


def _is_told_from_the_catalogue(page: Browser, read: np.ndarray) -> None:
    facts = page.run("return document.getElementById('fact-labels').textContent").split(" · ")
    assert ["(read, not in the catalogue)" in fact for fact in facts[:4]] == list(read)
    names = " ".join(name for name, one in zip(UNITS, read, strict=True) if one)
    assert (f"read, not in the catalogue: {names}" in page.run("return Spectangle.csv()")) == bool(names)
    titles = f"return {SLIDERS_OFF}".replace("disabled", "title.includes('(read)')")
    assert page.run(titles) == list(read)
    page.run("Bokeh.documents[0].get_model_by_name('slider_2').value = -0.3")
    assert page.run(titles) == [*read[:2], False, read[3]]
    caption = " ".join(page.run("return Spectangle.caption().flat()"))
    assert page.run(f"return {STAR}") in caption and "→ -0.30 dex" in caption and "run 0" in caption


@browser
@needs_chromium
def test_a_served_page_finds_stars_by_name_and_says_what_it_read(gappy, gaps: Path, toy_runs):
    train = load_stars(Run(toy_runs[0])).train
    row = next(row for row in train.rows if row % 6 == 0 and row > 0)
    for address in _serve(lambda: gappy):
        with Browser(400, 900) as window:
            window.open(address)
            window.wait("document.body.dataset.ready")
            window.run(SEARCH, f"hd {row}")
            window.wait(f"document.getElementById('fact-star').textContent.endsWith(' · HD{row:06d}')")
            assert window.run("return Bokeh.documents[0].get_model_by_name('search').value") == f"hd {row}"
            _is_told_from_the_catalogue(window, np.array([True, False, True, False]))
            both = "[state.ownLabels, Array.from(Spectangle.readLabels(0, state.runs[0].own))]"
            own, reading = window.run(f"const {{state}} = Spectangle; return {both}")
            np.testing.assert_allclose([own[0], own[2]], [reading[0], reading[2]], rtol=0.02, atol=0.02)
            window.run(SEARCH, str(train.source_id[3]))
            window.wait(f"{STAR} === '{train.source_id[3]}'")
            assert window.run("return Bokeh.documents[0].get_model_by_name('slider_1').end") >= 400
            assert window.run("return Bokeh.documents[0].get_model_by_name('legend').orientation") == "vertical"
            assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
            assert window.console() == []


@browser
@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
def test_long_names_and_names_of_lines_lie_on_nothing(width: int, gappy, tmp_path: Path):
    name = "log_surface_gravity_spectroscopic"
    first, *others = gappy.payload["labels"]
    labels = [first | {"symbol": name, "title": title(name, "dex"), "name": name}, *others]
    row = """const [name, ...others] = document.querySelector('.knows').children, box = name.getBoundingClientRect();
      const boxes = others.map((other) => other.getBoundingClientRect());
      const apart = boxes.every((other) => other.top >= box.bottom || other.left >= box.right);
      return apart && name.scrollWidth <= name.clientWidth && name.textContent"""
    with opened(replace(gappy, payload=gappy.payload | {"labels": labels}), tmp_path, width) as page:
        assert page.run(row) == name
        edges = "const e = view.shadow_el.querySelector('.bk-slider-title'); return [e.scrollWidth, e.clientWidth]"
        wanted, there = page.run(VIEW + edges, "slider_0")
        assert wanted <= there
        page.run("Bokeh.documents[0].get_model_by_name('spectrum').x_range.setv({start: 846, end: 870})")
        shown = page.run(
            VIEW
            + "const d = Bokeh.documents[0].get_model_by_name('lines').data; return d.name.map((name, i) => "
            + "[name, view.frame.x_scale.compute(d.x[i]), d.y[i]])",
            "spectrum",
        )
        assert (len([1 for name, *_ in shown if not name]) > 3) == (width == 400)
        for height in {y for *_, y in shown}:
            places = sorted(x for name, x, y in shown if name and y == height)
            assert len(places) < 2 or np.diff(places).min() > 20
        assert page.run("return document.documentElement.scrollWidth <= window.innerWidth") and page.console() == []


@browser
@needs_chromium
def test_a_saved_plot_has_the_changes_and_a_caption(page):
    heights = [page.run(VIEW + "return box.height", name) for name in ("spectrum", "difference")]
    whole = page.run("return Spectangle.savedPlot().height / window.devicePixelRatio")
    assert sum(heights) + 30 <= whole < sum(heights) + 120


def test_the_tick_of_the_raw_spectra_is_measured_as_the_bar_is(toy_runs, monkeypatch):
    metrics = {"probe/teff/r2": 0.9, "reference/teff/r2": 0.95, "probe/logg/r2": 0.8, "test/latent/m_h/r2": 0.3}
    metrics |= {f"test/spectra/{name}/r2": 0.5 for name in UNITS}
    monkeypatch.setattr(
        "spectangle.explorer.bundle.load", lambda *rest, **options: replace(load(*rest, **options), metrics=metrics)
    )
    knows = make_bundle(str(toy_runs[0]), stars=5, map_stars=20).payload["runs"][0]["knows"]
    assert [one["spectra"] for one in knows] == [0.95, None, 0.5, 0.5]


def test_stars_are_found_by_id_or_name(gaps: Path, toy_survey: Path):
    with Survey(gaps) as survey:
        for wanted in (str(survey.source_id[7]), "HD000007", "hd 7", " HD 0007"):
            assert find_star(survey, wanted) == 7
        with pytest.raises(SpectangleError, match="no star HD 700"):
            find_star(survey, "HD 700")
        assert star_classes(survey, ["instrument", "gone"], np.array([2, 0])) == {"instrument": ["FEROS", ""]}
    with Survey(toy_survey) as survey:
        assert star_names(survey, np.arange(3)) == []


def test_labels_are_written_as_in_the_figures():
    assert [plain_symbol(name) for name in ("teff", "m_h", "alpha_fe", "c_fe", "rv")] == [
        *("Teff", "[M/H]", "[α/Fe]", "[C/Fe]", "rv")
    ]
    assert title("rv", "km/s") == "rv [km/s]" and title("logg", "") == "log g"
    assert short_title("log_surface_gravity_spectroscopic", "dex", 26) == "log_surface_gravity… [dex]"
    assert short_title("teff", "K", 26) == "Teff [K]"


@pytest.mark.parametrize(
    ("host", "expected"), [("0.0.0.0", "whoever reaches this machine"), ("127.0.0.1", "ssh -N -L")]
)
def test_serving_others_warns_and_serving_oneself_tells_the_tunnel(
    host: str, expected: str, toy_runs, monkeypatch, capsys
):
    monkeypatch.setattr(
        "tornado.platform.asyncio.BaseAsyncIOLoop.start", lambda loop: None
    )  # ends at once, as after Ctrl-C
    code, printed, err = Command(monkeypatch, capsys)("explore", f"run={toy_runs[0]}", f"host={host}", "port=0")
    assert code == 0 and expected in printed, err
    assert ("whoever" in printed) == (host == "0.0.0.0")
    assert re.search(r"http://localhost:\d+/", printed) and "wildcard" not in printed.lower()


@pytest.mark.parametrize("what", ["no run", "no survey"])
def test_a_run_that_cannot_be_shown_gets_a_page_that_says_so(what: str, toy_runs, tmp_path: Path):
    run, survey = (tmp_path / "nothing", None) if what == "no run" else (toy_runs[0], str(tmp_path / "gone.h5"))
    for address in _serve(lambda: make_bundle(str(run), survey=survey)):
        with urllib.request.urlopen(address, timeout=20) as answer:
            text = answer.read().decode()
        assert ("is not a run folder" if what == "no run" else "is not at") in text and "<script" not in text


def test_ids_and_numbers_survive_json(bundle):
    text = json.dumps(bundle.payload["stars"]["id"])
    assert all(isinstance(one, str) and one in text for one in bundle.payload["stars"]["id"])
    assert [label["unit"] for label in bundle.payload["labels"]] == list(UNITS.values())


@browser
@needs_chromium
def test_what_the_population_tells_is_no_leak(page):
    """A disentangled label read as well as from the kept labels alone is lost; above that it is not."""
    code = """const [excess, r2] = arguments;
      const run = {lambdas: [-1, 1], attributes: [], knows: [{r2: 0.9}, {r2, excess, floor: 0.3, spectra: 0.4}]};
        return Spectangle.verdict(run).textContent"""
    assert page.run(code, 0.01, 0.3) == ""
    assert "log g was to be lost" in page.run(code, 0.2, 0.5)
    assert (
        "log g was to be lost" in page.run(code, None, 0.3) and page.run(code, None, 0.1) == ""
    )  # without probes: against the spectra
    assert "may still be read" in page.run(code.replace("{r2: 0.9}", "{r2: 0.9, atMost: true}"), 0.2, 0.5)


@browser
@needs_chromium
def test_attributes_stand_beside_the_labels(page):
    """A latent that told the instrument of a star looked as if nobody had asked."""
    code = """const [excess] = arguments;
      const one = {name: "instrument", lambda: 1, accuracy: 0.71, spectra: 0.95, chance: 0.5, excess, atMost: false};
      const run = {lambdas: [-1, 1], attributes: [one], knows: [{r2: 0.9}, {r2: 0.1, excess: 0}]};
      const row = Spectangle.attributeRow(one), ticks = [...row.querySelectorAll(".tick")].map((tick) => tick.title);
      return [row.className, row.querySelector(".r2").textContent, ...ticks, Spectangle.verdict(run).textContent]"""
    kind, value, spectra, chance, verdict = page.run(code, 0.2)
    assert (kind, value) == ("knows disentangled long", "0.71") and verdict.startswith("instrument was to be lost")
    assert spectra.endswith("balanced accuracy 0.95") and chance == "by chance: balanced accuracy 0.50"
    assert page.run(code, 0.02)[-1] == ""


def test_batch_normalisation_is_folded_into_the_decoder():
    torch.manual_seed(0)
    decoder = Decoder(3, 2, [16], 9, batch_norm=True)
    for _ in range(20):
        decoder(torch.randn(32, 3) + 1, torch.randn(32, 2))
    decoder.eval()
    layers = [[_unpacked(layer[name]) for name in ("weight", "bias")] for layer in pack_network(decoder.layers)]
    inputs = torch.randn(4, 5)
    h = inputs.numpy()
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight.T + bias
        h = np.maximum(h, 0) if i < len(layers) - 1 else h
    with torch.no_grad():
        np.testing.assert_allclose(h, decoder(inputs[:, :3], inputs[:, 3:]).numpy(), atol=2e-4)


def test_flux_is_packed_to_a_twentieth_of_a_thousandth():
    flux = np.array([[0.0, 1.0, np.nan, 1.23456, -0.5]], np.float32)
    np.testing.assert_allclose(_unpacked(pack_flux(flux)), flux, atol=2.6e-5)


@pytest.mark.parametrize("values", [[-3.0, 0.1, 4.0], [2.0, 2.0, 2.0]])
def test_steps_span_what_there_is(values: list[float]):
    np.testing.assert_allclose(_unpacked(pack_steps(np.array(values, np.float32))), values, atol=6e-5)


def test_arrays_that_are_moved_can_be_put_together_again():
    payload = {"a": [pack(np.arange(6.0).reshape(2, 3)), 1], "b": {"c": pack(np.arange(3), "u2")}, "d": "text"}
    store = bytearray()
    moved = move_arrays(payload, store)
    assert moved["d"] == "text" and moved["a"][1] == 1 and "data" not in moved["b"]["c"]
    for before, after in ((payload["a"][0], moved["a"][0]), (payload["b"]["c"], moved["b"]["c"])):
        count, width = int(np.prod(after["shape"])), int(after["kind"][1])
        planes = np.frombuffer(bytes(store[after["at"] : after["at"] + count * width]), np.uint8).reshape(width, count)
        assert planes.T.tobytes() == base64.b64decode(before["data"])


def test_maps_are_computed_once(tmp_path: Path):
    latent = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    first = latent_maps(latent, tmp_path / "map.npz")
    stamp = (tmp_path / "map.npz").stat().st_mtime_ns
    again = latent_maps(latent, tmp_path / "map.npz")
    assert (tmp_path / "map.npz").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first["tsne"], again["tsne"])
    assert first["pca"].shape == first["tsne"].shape == (40, 2)


def test_runs_of_different_stars_cannot_be_compared(toy_runs, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(toy_runs[2], other)
    config = other / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("split_seed: 0", "split_seed: 1"))
    with pytest.raises(SpectangleError, match="different stars"):
        make_bundle(str(toy_runs[0]), compare=str(other), stars=5, map_stars=20)


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ({"sweep/c1/seed=0": ["lambdas=none", "seed=0"]}, ["seed=0"]),
        (
            {"sweep/c1/seed=0": ["lambdas=first_pair", "seed=0"], "sweep/c2/seed=0": ["lambdas=none", "seed=0"]},
            ["c1/seed=0 (lambdas=first_pair)", "c2/seed=0 (lambdas=none)"],
        ),
        (
            {"a/c1/seed=0": ["seed=0", "hydra.run.dir=x"], "b/c1/seed=0": ["seed=0", "+model.latent=5"]},
            ["a/c1/seed=0", "b/c1/seed=0 (model.latent=5)"],
        ),
        ({"one": ["seed=0"], "two": ["seed=0"]}, ["one", "two"]),
        ({"c1/seed=0": ["seed=0"], "c1/seed=1": ["seed=1"]}, ["seed=0", "seed=1"]),
        ({"one": ["seed=0"]} | {"./one": ["seed=0"]}, ["one", "one"]),
    ],
)
def test_names_tell_compared_runs_apart(made: dict[str, list[str]], names: list[str], tmp_path: Path):
    runs = []
    for folder, overrides in made.items():
        (tmp_path / folder / ".hydra").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / ".hydra" / "config.yaml").touch()
        (tmp_path / folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
        runs.append(Run(tmp_path / folder))
    assert run_names(runs) == names


def test_saving_is_one_command(toy_runs, tmp_path: Path, monkeypatch, capsys):
    command = Command(monkeypatch, capsys)
    out = tmp_path / "explorer.html"
    code, printed, err = command("explore", f"run={toy_runs[0]}", f"save={out}", "stars=5", "map_stars=20")
    assert code == 0 and "works from disk" in printed, err
    assert re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", out.read_text()) == []
    code, _, err = command("explore", f"run={toy_runs[0]}", f"save={out}")
    assert code == 1 and "overwrite=true" in err


def _unpacked(packed: dict) -> np.ndarray:
    numbers = (
        np.frombuffer(base64.b64decode(packed["data"]), f"<{packed['kind']}")
        .reshape(packed["shape"])
        .astype(np.float64)
    )
    return (
        np.where(numbers == packed["masked"], np.nan, packed["low"] + packed["step"] * numbers)
        if "step" in packed
        else numbers
    )
