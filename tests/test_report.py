"""Reading sweeps: leaderboard, tables, the page, the difference of runs; and the sweeps that come with the project."""

import csv
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from browser import AVAILABLE, Browser
from commands import Command, run_train
from conftest import TINY
from sweep_tools import TRAIN, environment, records, start, sweep, wait_for, write_sweep

from spectangle.console import render
from spectangle.errors import SpectangleError
from spectangle.files import write_beside
from spectangle.reports.make import difference_table
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import ConfigurationFolder, write_sweep_record
from spectangle.sweeps.column_words import alike
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.leaderboard_page import importance, importance_note, write_report
from spectangle.sweeps.live_page import LivePage
from spectangle.sweeps.liveness import WorkerRecord

SWEEPS = sorted(path.stem for path in (TRAIN.parent / "sweeps").glob("*.yaml"))


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command and return what it printed, errors too."""
    command = Command(monkeypatch, capsys)

    def run(*words: str, code: int = 0) -> str:
        ended, printed, errors = command(*words)
        assert ended == code, printed + errors
        return printed + errors

    return run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    params = {"x": "choice(0.1, 0.2, 0.4)", "y": "choice(1, 2)", "fail": "choice(none, raise)"}
    path = write_sweep(folder, params=params, retries=0, max_failure_rate=1.0, direction=["minimize", "maximize"])
    sweep(folder, "objective=[score,other]", code=1)
    return path


def test_the_leaderboard_is_sorted_and_shows_only_what_varies(swept: Path):
    board = Leaderboard(swept)
    assert board.varying == ["x", "y", "fail"] and board.counts() == {"complete": 6, "failed": 6}
    assert [entry.state for entry in board.entries] == ["complete"] * 6 + ["failed"] * 6
    assert all(
        entry.front
        for entry in board.entries
        if (entry.params["y"], entry.params["x"], entry.params["fail"]) == (2, 0.2, "none")
    )
    assert render(board.text(), width=100).count("ValueError: a deliberate failure") == 6
    assert "ValueError" not in render(board.text(hide_failed=True), width=100)


def test_the_leaderboard_says_where_probes_were_left_out(swept: Path, tmp_path: Path):
    """As packs on a GPU do; runs that are measured in two ways are no matter of course."""
    copy = shutil.copytree(swept, tmp_path / "copy")
    assert "probed" not in render(Leaderboard(copy).text(), width=200)
    done = [entry for entry in Leaderboard(copy).entries if entry.metrics]
    for i, entry in enumerate(done):
        numbers = json.loads((entry.path / "metrics.json").read_text())
        (entry.path / "metrics.json").write_text(json.dumps(numbers | {"probe/left_out": 1.0}))
        note = "Latents were probed" if i == len(done) - 1 else f"Latents of {i + 1} of {len(done)} configurations were"
        assert note in render(Leaderboard(copy).text(), width=200) and len(done) == 6
    write_report(Leaderboard(copy))
    assert "probes=full asks all" in (copy / "report.html").read_text()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_five_parameters_fit_into_the_page_with_every_reason(tmp_path: Path, width: int):
    keys = ["model.latent", "optimizer.discriminator_lr", "adversary.discriminator_steps", "lambdas", "data.batch_size"]
    reason = (
        "the loss of the autoencoder is not finite in epoch 7 (learning rate 0.01); take a smaller optimizer.lr, or "
        "clip [the] gradients"
    )
    for number, state in enumerate(["complete", "complete", "failed", "running", "failed"]):
        params = dict(zip(keys, [5 * number, 10.0**-number, number, "entangle_physical", 64 * number], strict=True))
        facts = {
            "name": f"c{number}9f86d081e",
            "params": params,
            "state": state,
            "values": [0.125, 0.3 * number] if state == "complete" else None,
        }
        facts |= (
            {"reason": reason, "traceback": "one\ntwo"}
            if number == 2
            else {"reason": "it was killed by SIGKILL", "traceback": "a\noom-kill\n"}
        )
        write_beside(tmp_path / facts["name"] / "trial.json", json.dumps(facts))
    names = ["val/reconstruction", "val/excess/teff + val/excess/logg"]
    write_sweep_record(tmp_path, {"objectives": names, "directions": ["minimize"] * 2, "swept": keys})
    text = render(Leaderboard(tmp_path).text(), width=width)
    assert max(map(len, text.splitlines())) <= width
    whole = " ".join(text.split())
    assert f"c29f86d081e {reason}" in whole and "c49f86d081e it was killed by SIGKILL; its last line: oom-kill" in whole
    assert all(word in text for word in ("0.125", "0.0001", "c19f86d081e", "running"))


def test_the_front_holds_what_nothing_else_beats(swept: Path):
    board = Leaderboard(swept)
    done = [entry.values for entry in board.entries if entry.values]
    for entry in board.entries:
        if entry.values:
            beaten = any(a <= entry.values[0] and b >= entry.values[1] and [a, b] != entry.values for a, b in done)
            assert entry.front != beaten


def test_the_tables_can_be_read_back(swept: Path):
    from astropy.table import Table

    write_report(Leaderboard(swept))
    rows = list(csv.DictReader((swept / "results.csv").open()))
    table = Table.read(swept / "results.ecsv")
    assert len(rows) == len(table) == 12 and table.meta["objectives"] == ["score", "other"]
    assert float(rows[0]["score"]) == pytest.approx(table["score"][0]) == min(table["score"])


def test_the_page_is_one_file_that_needs_no_network(swept: Path):
    write_report(Leaderboard(swept))
    text = (swept / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?://(?!www\.w3\.org)""", text)
    data = data_of(swept / "report.html")
    assert len(data["entries"]) == 12 and data["dashboard"].startswith("optuna-dashboard")


def data_of(page: Path) -> dict:
    """What a page of a sweep shows."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.S)
    return json.loads(found[1])  # pyright: ignore


def test_a_sweep_runs_while_a_worker_is_alive(tmp_path: Path):
    board = made_up(tmp_path, {(1, 1): [1, 2]}, n_trials=2)
    write_report(board)
    assert data_of(tmp_path / "report.html")["stopped"] and not data_of(tmp_path / "report.html")["live"]
    WorkerRecord(tmp_path, 5)
    write_report(board)
    assert data_of(tmp_path / "report.html")["live"] and not data_of(tmp_path / "report.html")["stopped"]


def test_numbers_of_a_column_have_one_number_of_digits():
    assert alike([4e-4, 3.83e-4, None]) == ["0.000400", "0.000383", ""]
    assert alike([0.24, 0.27421, 0]) == ["0.2400", "0.2742", "0"]
    assert alike([1, 0.6, 1.5, "none", True]) == ["1.0", "0.60", "1.5", "none", "True"]
    assert alike([5e-6, 0.0123]) == ["5.00e-06", "1.23e-02"]
    assert alike([64, 128.0, 12345]) == ["64", "128", "12345"]
    assert alike([0.001, 0.01]) == ["0.001", "0.01"]
    assert alike([9.99996, 3.14159]) == ["10.00", "3.142"]


needs_browser = pytest.mark.skipif(not AVAILABLE, reason="chromium or chromedriver is not installed")


@pytest.mark.browser
@needs_browser
def test_the_page_draws_itself_and_links_to_what_lies_beside_it(swept: Path, tmp_path: Path):
    copy = shutil.copytree(swept, tmp_path / "a (b), #1 100%")
    done = next(entry for entry in Leaderboard(copy).entries if entry.state == "complete")
    write_beside(done.path / "figures" / "kiel.png", "a figure")
    write_report(Leaderboard(copy))
    with Browser(800, 1200) as browser:
        browser.open((copy / "report.html").as_uri())
        count = lambda selector: browser.run(f"return document.querySelectorAll('{selector}').length")  # noqa: E731
        assert count(".path") >= 6 and count(".dot") >= 12 and count("#board tr") == 13
        links = browser.run("return [...document.querySelectorAll('#board a, #failures a')].map(a => a.href)")
        assert len(links) > 24 and all(Path(unquote(urlparse(link).path)).exists() for link in links)
        assert any(link.endswith(f"{done.name}/figures/kiel.png") for link in links)
        reasons = browser.run("return [...document.querySelectorAll('#reasons dd')].map(d => d.textContent)")
        assert reasons == ["ValueError: a deliberate failure"] * 6
        assert browser.run("return document.documentElement.scrollWidth <= 800") and not browser.console()


@pytest.mark.browser
@needs_browser
def test_axes_are_legible_and_can_be_brushed(tmp_path: Path):
    board = made_up(tmp_path, {(a, b): [10 * a + b, b] for a in range(6) for b in range(6)})
    write_report(board)
    with Browser(800, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        size = (
            "const svg = document.querySelector('#parallel svg'); return svg.getBoundingClientRect().width / "
            "svg.viewBox.baseVal.width * 11"
        )
        assert browser.run(size) >= 11
        browser.run("document.getElementById('parallel').scrollIntoView({block: 'center'})")
        axis = browser.run(
            "const box = document.querySelector('[data-axis=a]').getBoundingClientRect(); return [box.x + 14, "
            "box.y, box.height]"
        )
        browser.drag(axis[0], axis[1] + 1, axis[0], axis[1] + 0.5 * axis[2])  # the upper half: a = 3, 4, 5
        assert browser.run("return document.querySelectorAll('#board tbody tr').length") == 18
        assert browser.run("return document.querySelectorAll('#parallel .path:not(.off)').length") == 18
        assert "18 of 36 chosen" in browser.run("return document.getElementById('chosen').textContent")
        browser.run("document.querySelector('#chosen button').click()")
        assert browser.run("return document.querySelectorAll('#board tbody tr').length") == 36 and not browser.console()


@pytest.mark.browser
@needs_browser
def test_axes_of_parameters_name_what_was_swept(tmp_path: Path):
    write_report(made_up(tmp_path, {(a, b): [a + b, b] for a in (5, 10, 25) for b in (0.1, 1, 10)}))
    with Browser(800, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        words = browser.run("return [...document.querySelectorAll('#each svg text')].map(t => t.textContent)")
        assert words[words.index("25") - 2 : words.index("25") + 1] == ["5", "10", "25"]
        assert "0.1,1,10" in ",".join(words)
        marks = browser.run("return [...document.querySelectorAll('#parallel .halo')].map(t => t.textContent)")
        assert marks[:6] == ["5", "10", "25", "0.1", "1", "10"] and not browser.console()


@pytest.mark.browser
@needs_browser
def test_colours_have_contrast_in_both_themes_and_the_best_has_the_most(tmp_path: Path):
    """Also when the theme changes while the page is open; the words follow."""
    write_report(made_up(tmp_path, {(a, 0): [a, a] for a in range(6)}))
    contrasts = """
        const light = c => c.map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) =>
            sum + v * [.2126, .7152, .0722][i], 0);
        const part = text => text.startsWith("rgb") ? text.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
            : text.match(/[0-9.]+/g).slice(0, 3).map(Number);
        const card = light(part(getComputedStyle(document.querySelector(".card")).backgroundColor));
        return [...document.querySelectorAll("#parallel .path")].map(node => {
            const own = light(part(getComputedStyle(node).stroke));
            return (Math.max(own, card) + .05) / (Math.min(own, card) + .05); });"""
    with Browser(1000, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        for dark, word in ((False, "dark"), (True, "bright"), (False, "dark")):
            browser.emulate(dark)
            browser.wait(f"matchMedia('(prefers-color-scheme: {'dark' if dark else 'light'})').matches")
            found = browser.run(contrasts)  # the worst is drawn first
            assert len(found) == 6 and min(found) > 3 and found == sorted(found), found
            assert f"({word} is better)" in browser.run(
                "return document.getElementById('parallel').parentNode.innerText"
            )


@pytest.mark.browser
@needs_browser
def test_charts_say_what_colours_mean_and_what_is_not_shown(tmp_path: Path):
    made_up(tmp_path, {(a, a % 2): [a, 1 / (1 + a)] for a in range(4)})
    for name in ("c0", "c2"):
        record = json.loads((tmp_path / name / "trial.json").read_text())
        record["params"] |= {"kind": "one" if name == "c0" else "two", "b": None}
        write_beside(tmp_path / name / "trial.json", json.dumps(record))
    write_report(Leaderboard(tmp_path))
    with Browser(1000, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        choose = "for (const [k, v] of Object.entries(arguments[0])) { $(k).value = v; $(k).onchange(); }"
        text = "return document.getElementById('scatter').innerText"
        browser.run(choose, {"x": "a", "y": "two", "c": "one"})
        assert re.sub(r"\s+", " ", browser.run(text)).endswith("one: 0 3")
        browser.run(choose, {"c": "kind"})
        assert all(word in browser.run(text) for word in ("kind:", "one", "two", "no kind"))
        browser.run(choose, {"x": "b"})
        assert "2 of 4 shown; the others have no b." in browser.run(text)
        assert browser.run(
            "return describe(E.find(e => e.name === 'c2'), ['two', 'kind']).split('\\n').slice(0, 3)"
        ) == [
            "c2 (complete)",
            "two: 0.3333",
            "kind = two",
        ]


@pytest.mark.browser
@needs_browser
def test_charts_keep_the_size_of_their_words_on_a_telephone(tmp_path: Path):
    write_report(made_up(tmp_path, {(a, b): [10 * a + b, b] for a in range(3) for b in range(3)}))
    with Browser(1000, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        browser.emulate(width=400)
        browser.wait("document.querySelector('#scatter svg').getBoundingClientRect().width < 400")
        scale = "n.getBoundingClientRect().width / n.viewBox.baseVal.width"
        ticks = "return scale([1, 1.5, 2], 0, 100).ticks.map(t => t[1])"
        assert browser.run(ticks) == ["1.0", "1.5", "2.0"]
        assert browser.run("return whole(scale([1, 2], 0, 100)).ticks.map(t => t[1])") == ["1", "2"]
        assert min(browser.run(f"return [...document.querySelectorAll('svg')].map(n => {scale})")) > 0.99
        assert browser.run("return document.documentElement.scrollWidth <= 400") and not browser.console()


@pytest.mark.browser
@needs_browser
def test_a_sweep_of_failures_says_that_there_is_nothing_to_draw(tmp_path: Path):
    made_up(tmp_path, {(a, 1): [1, 1] for a in range(3)})
    for path in tmp_path.glob("*/trial.json"):
        write_beside(path, json.dumps(json.loads(path.read_text()) | {"state": "failed", "values": None}))
    write_report(Leaderboard(tmp_path))
    with Browser(1000, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        for part in ("scatter", "history", "parallel", "each"):
            assert browser.run(f"return document.getElementById('{part}').innerText") == "No configuration is complete."


@pytest.mark.browser
@needs_browser
def test_the_page_reads_itself_again_while_the_sweep_runs(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("spectangle.sweeps.leaderboard_page.REFRESH_S", 0.5)
    board = made_up(tmp_path, {(1, 1): [1, 2], (2, 1): [2, 1]}, n_trials=4)
    WorkerRecord(tmp_path, 5)
    write_report(board)
    with Browser(800, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        browser.run("$('m').value = 'two'; $('m').onchange(); $('filter').value = 'c';")
        write_report(made_up(tmp_path, {(1, 1): [1, 2], (2, 1): [2, 1], (3, 1): [3, 1]}, n_trials=4))
        browser.wait("document.getElementById('counts').textContent.includes('3 complete')")
        assert browser.run("return [$('m').value, $('filter').value]") == ["two", "c"]
        write_report(made_up(tmp_path, {(a, 1): [a, 1] for a in range(1, 5)}, n_trials=4))
        browser.wait("document.getElementById('live').hidden")
        assert not browser.console()


def test_the_page_is_written_when_it_is_due_and_costs_the_sweep_nothing(tmp_path: Path, monkeypatch, caplog):
    page = LivePage(tmp_path)
    made_up(tmp_path, {(1, 1): [1, 2]})
    page.update()
    assert not (tmp_path / "report.html").exists()  # not due
    monkeypatch.setattr("spectangle.sweeps.live_page.EVERY_S", 0)
    page = LivePage(tmp_path)
    page.update()
    assert (tmp_path / "report.html").is_file()
    monkeypatch.setattr("spectangle.sweeps.live_page.write_page", lambda board: 1 / 0)
    for _ in range(2):
        page = LivePage(tmp_path)
        page.update()
    assert "ZeroDivisionError" in caplog.text
    LivePage(tmp_path / "nothing there").update()


@pytest.mark.slow
def test_a_sweep_that_runs_has_a_page(tmp_path: Path, monkeypatch):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"})
    monkeypatch.setenv("PAGE_EVERY_S", "2")  # of a user: 30
    process = start(tmp_path, "epochs=600", "epoch_s=0.5")
    wait_for(lambda: (folder / "report.html").is_file(), 120)
    data = data_of(folder / "report.html")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert data["live"] and not data["stopped"] and data["counts"] == {"running": 1, "waiting": 1}
    data = data_of(folder / "report.html")
    assert data["stopped"] and not data["live"] and "running" not in data["counts"]


@pytest.mark.browser
@needs_browser
def test_a_median_needs_several_values_for_a_setting(tmp_path: Path):
    """Parameter a has one configuration for each value, b has six."""
    write_report(made_up(tmp_path, {(a + b / 10, b): [a, b] for a in range(6) for b in range(3)}))
    with Browser(800, 1200) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        lines = "return [...document.querySelectorAll('#each svg')].map(svg => svg.querySelectorAll('.best').length)"
        assert browser.run(lines) == [0, 1]


def test_the_report_is_rebuilt_from_the_runs_alone(swept: Path, tmp_path: Path, call):
    copy = shutil.copytree(swept, tmp_path / "copy")
    (copy / "study.log").unlink()
    assert "6 complete, 6 failed" in call("report", f"sweep={copy}", "--hide-failed")
    record = next(copy.glob("*/trial.json"))
    record.write_text(
        json.dumps(json.loads(record.read_text()) | {"state": "running", "worker": "gone", "values": None})
    )
    (record.parent / "metrics.json").unlink(missing_ok=True)
    assert "1 lost" in call("report", f"sweep={copy}")


def test_a_plain_multirun_has_a_leaderboard(swept: Path, tmp_path: Path):
    for record in records(swept).values():
        if record["state"] == "complete":
            shutil.copytree(
                swept / record["name"], tmp_path / record["name"], ignore=shutil.ignore_patterns("trial.json")
            )
    board = Leaderboard(tmp_path)
    assert board.varying == ["x", "y"] and board.entries[0].values == [
        min(entry.values[0] for entry in board.entries if entry.values),
        board.entries[0].values[1],
    ]  # pyright: ignore


def test_an_empty_folder_is_refused(tmp_path: Path, call):
    with pytest.raises(SpectangleError, match="no runs"):
        Leaderboard(tmp_path)
    assert "must be one of" in call("report", "kind=nonsense", code=1)
    assert "at least two" in call("report", "kind=diff", code=1)


def test_the_difference_of_two_runs(swept: Path, call):
    one, two = (str(swept / records(swept)[f"x={x} y=1 fail=none"]["name"]) for x in (0.1, 0.2))
    output = call("report", "kind=diff", f"runs=[{one},{two}]")
    assert re.search(r"x +│ +0.1 +│ +0.2 +│ +\+100.0 %", output) and "fail" not in output
    assert "1 of 2 differ" in render(difference_table("t", ["a", "b"], [{"k": 1, "l": 2}, {"k": 1, "l": 3}]))


def test_differences_are_of_what_choices_come_to(swept: Path, tmp_path: Path, call):
    """``${with_lambda:...}`` may come to what another run wrote, and ``${seed}`` follows from the seed."""
    ways = {"one": "${with_lambda:observed,${lambdas}}", "two": "observed", "three": "synthetic"}
    for seed, (name, way) in enumerate(ways.items()):
        config = {"lambdas": {"teff": 1.0 + seed}, "model": {"conditioning": way, "lambdas": "${lambdas}"}}
        config |= {"seed": seed, "probes": {"seed": "${seed}"}}
        write_beside(tmp_path / name / "run" / ".hydra" / "config.yaml", json.dumps(config))
    text = call("report", "kind=diff", f"runs=[{tmp_path}/one/run,{tmp_path}/two/run]")
    assert "one/run" in text and str(tmp_path) not in text  # names that tell them apart, no more
    assert (
        "conditioning" not in text
        and "model.lambdas" not in text
        and "lambdas.teff" in text
        and "probes.seed" not in text
        and re.search(r"seed +│ +0 │ +1 │ +\+1 ", text)
    )
    text = call("report", "kind=diff", f"runs=[{tmp_path}/one/run,{tmp_path}/three/run]")
    assert re.search(r"model.conditioning +│ +observed │ +synthetic ", text)


def test_a_change_from_nothing_is_a_difference():
    text = render(difference_table("t", ["a", "b"], [{"k": 0, "l": 2.0}, {"k": 0.1, "l": 1.0}]))
    assert "+0.1 " in text and "-50.0 %" in text


def test_percentages_are_of_what_is_not_about_zero():
    """Means of residuals, R2 of permuted labels and whatever changes its sign were said to change by -340 %."""
    old = {"test/latent/teff/mean": 1.0, "probe/teff/control": -0.001, "excess/m_h": 0.01, "lambdas.teff": -1.0}
    new = {"test/latent/teff/mean": 4.5, "probe/teff/control": -0.004, "excess/m_h": 0.03, "lambdas.teff": 1.0}
    text = render(difference_table("t", ["a", "b"], [old, new]), width=120)
    assert "%" not in text and all(change in text for change in (" +3.5 ", " -0.003 ", " +0.02 ", " +2 "))
    maes = [{"test/latent/teff/mae": 80.0}, {"test/latent/teff/mae": 60.0}]
    assert "-25.0 %" in render(difference_table("t", ["a", "b"], maes), width=120)


def test_the_difference_begins_with_what_a_run_is_judged_by():
    first = ["test/latent/teff/mae", "test/spectra/m_h/mae", "excess/m_h", "probe/m_h/r2", "probe/teff/r2"]
    rest = ["adversary/classes", "epoch/best", "excess_low/m_h", "probe/m_h/ridge/r2", "val/loss"]
    table = difference_table("t", ["a", "b"], [dict.fromkeys([*rest, *first], value) for value in (1.0, 2.0)])
    assert list(table.columns[0].cells) == [*first, *rest]


def made_up(folder: Path, values: dict[tuple[float, float], list[float]], **facts) -> Leaderboard:
    """The leaderboard of a sweep over a and b that exists on paper only."""
    for number, ((a, b), found) in enumerate(values.items()):
        write_beside(
            folder / f"c{number}" / "trial.json",
            json.dumps({"name": f"c{number}", "params": {"a": a, "b": b}, "state": "complete", "values": found}),
        )
    write_sweep_record(
        folder, {"objectives": ["one", "two"], "directions": ["minimize", "maximize"], "swept": ["a", "b"]} | facts
    )
    return Leaderboard(folder)


def test_the_best_come_first_whichever_way_is_better(tmp_path: Path):
    """The front of two objectives before what it beats, ties together; of one objective the largest, if it is to be."""
    values = {(1, 0): [3.0, 1.0], (2, 0): [2.5, 9.0], (3, 0): [1.0, 5.0], (4, 0): [2.0, 5.0], (5, 0): [1.0, 5.0]}
    board = made_up(tmp_path / "two", values)
    assert [entry.name for entry in board.entries] == ["c2", "c4", "c1", "c3", "c0"]
    assert [entry.front for entry in board.entries] == [True, True, True, False, False]
    largest = made_up(
        tmp_path / "one", {a: found[1:] for a, found in values.items()}, objectives=["two"], directions=["maximize"]
    )
    assert [entry.values for entry in largest.entries] == [[9.0], [5.0], [5.0], [5.0], [1.0]]
    assert [row[0] for row in largest.rows()] == [1, 2, 3, 4, 5]


def test_what_did_not_end_well_is_not_ranked(tmp_path: Path):
    """Though it has values: not finite, or of a run that was pruned; what has not begun is waiting."""
    board = made_up(tmp_path, {(1, 0): [math.inf, 1.0], (2, 0): [2.0, 1.0], (3, 0): [1.0, 9.0]}, n_trials=5)
    ConfigurationFolder(tmp_path / "c2").write_record(state="pruned")
    board = Leaderboard(tmp_path)
    assert {entry.name: (entry.values, entry.front) for entry in board.entries} == {
        "c1": ([2.0, 1.0], True),
        "c0": (None, False),
        "c2": ([1.0, 9.0], False),
    }
    assert board.counts() == {"complete": 2, "waiting": 2, "pruned": 1} and board.rows()[2][0] is None


def test_what_a_dead_worker_was_running_is_lost_unless_it_had_finished(tmp_path: Path):
    made_up(tmp_path, {(a, 0): [1.0, 1.0] for a in range(3)})
    worker = WorkerRecord(tmp_path, 5)
    for name, who in (("c0", worker.name), ("c1", "dead"), ("c2", "dead")):
        ConfigurationFolder(tmp_path / name).write_record(state="running", worker=who, values=None)
    Run(tmp_path / "c2", must_exist=False).write_metrics({"one": 0.5, "two": 0.25})
    found = {entry.name: (entry.state, entry.values) for entry in Leaderboard(tmp_path).entries}
    assert found == {"c0": ("running", None), "c1": ("lost", None), "c2": ("complete", [0.5, 0.25])}
    ConfigurationFolder(tmp_path / "c1").write_record(state="interrupted")
    assert {entry.name: entry.state for entry in Leaderboard(tmp_path).entries}["c1"] == "interrupted"


def test_metrics_are_means_over_the_seeds_that_have_finished(tmp_path: Path):
    """Of what every one of them measured."""
    made_up(tmp_path, {(0, 0): [1.0, 1.0]}, seeds=[0, 1, 2, 3])
    for seed, score in enumerate((1.0, 2.0, 6.0)):
        run = Run(tmp_path / "c0" / f"seed={seed}", must_exist=False)
        run.write_metrics({"score": score} | ({"extra": 1.0} if seed < 2 else {}))
    (entry,) = Leaderboard(tmp_path).entries
    assert entry.metrics == {"score": 3.0} and entry.values == [1.0, 1.0]


def test_importance_is_the_share_of_the_variance(tmp_path: Path):
    """Main effects by hand: one = 10 a + b, two = b, over a full grid: variances 100 : 1 and 0 : 1."""
    board = made_up(tmp_path, {(a, b): [10 * a + b, b] for a in range(6) for b in range(6)})
    one, two = importance(board, 0), importance(board, 1)
    assert one["a"] == pytest.approx(100 / 101, abs=0.03) and one["b"] == pytest.approx(1 / 101, abs=0.03)
    assert two["b"] > 0.97 and "36 configurations" in importance_note(board)


def test_too_few_points_have_no_importance(tmp_path: Path):
    board = made_up(tmp_path, {(1, 1): [1, 1], (2, 1): [2, 1]})
    assert importance(board, 0) == {} and "needs at least 4" in importance_note(board)
    assert "a hint" in importance_note(made_up(tmp_path, {(a, b): [a, b] for a in range(2) for b in range(3)}))


@pytest.mark.parametrize("name", SWEEPS)
def test_each_sweep_of_the_project_can_be_planned(name: str, tmp_path: Path, monkeypatch, capsys):
    command = Command(monkeypatch, capsys)
    code, printed, errors = command("train", f"sweep={name}", "dry_run=true", f"sweep.dir={tmp_path}")
    assert code == 0 and "Nothing was started" in printed, errors


SMOKE = {  # each sweep of the project with two epochs on 300 stars, and few points of its space
    "architecture": [
        "model=tiny",
        "model.conditioning=observed,synthetic",
        "model.latent_norm=batch",
        "model.batch_norm=false",
    ],
    "bins": ["bins.count=5"],
    "discriminators": ["bins.count=5"],
    "folds": ["data=synthetic", "lambdas=first_pair", "data.fold=0,1"],
    "frontier": ["adversary.entangled_scale=1,2"],
    "lambda_tpe": ["sweep.n_trials=3"],
    "latent_size": ["model.latent=2,4", "trial_seeds=[0]"],
    "paper_grid": ["model=tiny", "model.latent=2,4", "bins.count=5", "strength=1"],
    "table1": ["trial_seeds=[0]", "lambdas=first_pair,none"],
}


def test_no_sweep_is_forgotten():
    assert sorted(SMOKE) == SWEEPS


ONE_BY_ONE = """
import json, sys
from spectangle.commands.main import main

for name, words in json.loads(sys.argv[1]).items():
    sys.argv = ["spectangle", "train", f"sweep={name}", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            print(f"sweep={name} ended with {end.code}")
            raise
"""


@pytest.mark.slow
def test_each_sweep_of_the_project_runs(tmp_path: Path):
    """All in one process, which loads torch once; their runs are forked off it."""
    small = ["experiment=smoke", "sweep.workers=2"]
    lines = {name: [*small, *words, f"sweep.dir={tmp_path / name}"] for name, words in SMOKE.items()}
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, json.dumps(lines)], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0 and "failed" not in done.stdout + done.stderr, done.stdout + done.stderr
    for name in SMOKE:
        states = {json.loads(path.read_text())["state"] for path in (tmp_path / name).glob("*/trial.json")}
        assert states == {"complete"}, name
        assert {"report.html", "results.csv", "results.ecsv"} <= {path.name for path in (tmp_path / name).iterdir()}


def test_folds_are_averaged_over_seeds_and_spread_over_folds(tmp_path):
    """Two seeds of each fold: the spread is that of the folds' means."""
    from spectangle.reports.folds import fold_groups, fold_table

    mae = {(0, 0): 100.0, (0, 1): 120.0, (1, 0): 130.0, (1, 1): 150.0}
    for (fold, seed), value in mae.items():
        run = tmp_path / f"{fold}-{seed}"
        (run / ".hydra").mkdir(parents=True)
        config = {"data": {"folds": 5, "fold": fold, "seed": "${seed}"}, "lambdas": {"teff": -1.0, "fe_h": 1.0}}
        (run / ".hydra" / "config.yaml").write_text(json.dumps(config | {"seed": seed}))
        metrics = {
            "test/latent/teff/mae": value,
            "test/spectra/teff/mae": 2 * value,
            "test/latent/fe_h/mae": 0.5,
            "excess/fe_h": 0.01 * fold,
        }
        (run / "metrics.json").write_text(json.dumps(metrics | {"excess_is_upper_bound": 1.0}))
        (run / "manifest.json").write_text(json.dumps({"survey": {"units": {"teff": "K", "fe_h": "dex"}}}))
    groups = fold_groups(tmp_path)
    assert list(groups) == ["entangled teff; disentangled fe_h"]
    table = fold_table(*next(iter(groups.items())))
    text = render(table)
    assert "2 of 5 folds, 2 seeds" in text and "125 ± 21" in text and "0.500 ± 0.000" in text and "(at most)" in text
    assert "0.005 ± 0.007" in text


def test_experiments_that_keep_the_same_labels_stay_apart(tmp_path):
    """Strengths of lambda, and numbers of folds: none is lost, none is mixed with another."""
    from spectangle.reports.folds import fold_groups

    for name, folds, teff in (("weak", 5, -1.0), ("strong", 5, -5.0), ("ten", 10, -1.0)):
        for fold in (0, 1):
            run = tmp_path / f"{name}{fold}"
            (run / ".hydra").mkdir(parents=True)
            config = {"data": {"folds": folds, "fold": fold}, "lambdas": {"teff": teff}}
            (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
            (run / "metrics.json").write_text(json.dumps({"test/latent/teff/mae": 1.0}))
    groups = fold_groups(tmp_path)
    assert sorted(groups) == [f"entangled teff ({i})" for i in (1, 2, 3)]
    together = [sorted(run.path.name for run in runs) for runs in groups.values()]
    assert sorted(together) == [["strong0", "strong1"], ["ten0", "ten1"], ["weak0", "weak1"]]


def test_a_narrow_table_over_folds_loses_nothing(tmp_path):
    from spectangle.reports.folds import fold_groups, fold_table

    for fold in range(3):
        path = tmp_path / f"run{fold}"
        lambdas = {"teff": 0.1, "alpha_fe": -1.0}
        config = {"data": {"folds": 3, "fold": fold}, "seed": 0, "lambdas": lambdas}
        write_beside(path / ".hydra" / "config.yaml", json.dumps(config))
        write_beside(path / "manifest.json", json.dumps({"survey": {"units": {"teff": "K", "alpha_fe": "dex"}}}))
        metrics = {f"test/{s}/{n}/mae": 100.0 + fold for n in lambdas for s in ("spectra", "latent")}
        metrics |= {f"{p}/{n}{q}": 0.5 + fold / 10 for n in lambdas for p, q in (("probe", "/r2"), ("floor", ""))}
        metrics |= {f"excess/{n}": 0.25 for n in lambdas} | {"excess_is_upper_bound": 1.0}
        write_beside(path / "metrics.json", json.dumps(metrics))
    title, runs = next(iter(fold_groups(tmp_path).items()))
    wide, narrow = render(fold_table(title, runs), width=200), render(fold_table(title, runs, narrow=True), width=80)
    assert max(map(len, narrow.splitlines())) <= 80 and "…" not in narrow
    cells = re.findall(r"[\w.±\[\]]+", wide)
    assert cells and set(cells) == set(re.findall(r"[\w.±\[\]]+", narrow))


def test_folds_tell_stars_and_attributes(tmp_path):
    from spectangle.reports.folds import attribute_fold_table, fold_groups, fold_table

    for fold in (0, 1):
        run = tmp_path / str(fold)
        (run / ".hydra").mkdir(parents=True)
        config = {"data": {"folds": 5, "fold": fold}, "labels": {"attributes": ["instrument"]}}
        config |= {"lambdas": {"teff": -1.0, "fe_h": 0.0, "instrument": 1.0}}
        (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
        metrics = {f"test/latent/{name}/mae": 0.5 for name in ("teff", "fe_h")}
        metrics |= {"probe/teff/stars": 1700.0, "probe/fe_h/stars": 300.0 + fold, "probe/instrument/stars": 1650.0}
        metrics |= {"probe/instrument/balanced_accuracy": 0.6 + 0.1 * fold, "probe/instrument/chance": 0.5}
        (run / "metrics.json").write_text(json.dumps(metrics | {"excess/instrument": 0.04}))
        (run / "manifest.json").write_text(json.dumps({"survey": {"units": {"teff": "K", "fe_h": "dex"}}}))
    [(title, runs)] = fold_groups(tmp_path).items()
    text = render(fold_table(title, runs))
    assert "3,400" in text and "601" in text and "instrument" not in text.partition("\n")[2]
    attributes = attribute_fold_table(runs)
    assert attributes is not None
    words = render(attributes).split()
    assert "disentangled" in words and "0.650" in words and "3,300" in words and "0.040" in words


def test_folds_need_runs_with_folds(tmp_path):
    from spectangle.reports.folds import fold_groups

    with pytest.raises(SpectangleError, match="no finished run with data.folds"):
        fold_groups(tmp_path)


def test_folds_are_drawn_with_each_star_as_a_test_star(toy_survey, tmp_path, monkeypatch, capsys):
    from spectangle.figures import predictions
    from spectangle.reports import fold_figures

    options = [
        f"data.path={toy_survey}",
        "data.folds=2",
        "lambdas=first_pair",
        "trainer.max_epochs=2",
        "regressor=torch",
    ]
    folds = ["callbacks.probes=null", "data.fold=0,1", f"hydra.sweep.dir={tmp_path}"]
    run_train("-m", *TINY, *options, *folds)
    drawn = []
    monkeypatch.setattr(
        fold_figures, "prediction_figure", lambda *a, **k: drawn.append(a) or predictions.prediction_figure(*a, **k)
    )
    code, printed, errors = Command(monkeypatch, capsys)("report", "kind=folds", f"sweep={tmp_path}")
    assert code == 0 and "2 of 2 folds" in printed, errors
    assert "errors in the figures are of all stars together" in " ".join(printed.split())
    assert "errors of all together" in drawn[0][3]
    written = sorted(path.name for path in (tmp_path / "figures").glob("*.png"))
    begins = "entangled-teff-logg-disentangled-m_h-alpha_fe"
    assert written == [f"{begins}-{name}.png" for name in ("kiel_chemical", "predicted", "tsne")]
    predicted, catalogue = drawn[0][:2]
    assert len(catalogue["teff"]) == len(predicted["teff"]) == 400
