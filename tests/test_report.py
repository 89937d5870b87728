"""Reading sweeps: leaderboard, tables, the page, the difference of runs; and the sweeps that come with the project."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command
from sweep_tools import TRAIN, environment, records, sweep, write_sweep

from spectangle.console import render
from spectangle.errors import SpectangleError
from spectangle.outputs import write_beside
from spectangle.reports.leaderboard import Leaderboard
from spectangle.reports.make import difference_table
from spectangle.reports.page import importance, importance_note
from spectangle.runs import write_sweep_record

SWEEPS = sorted(path.stem for path in (TRAIN.parent / "sweeps").glob("*.yaml"))


def call(script: str, *arguments: str, cwd: Path = TRAIN.parent, code: int = 0) -> str:
    answer = subprocess.run([sys.executable, str(TRAIN.parent / script), *arguments], capture_output=True, text=True, env=environment(), cwd=cwd)
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


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
    assert all(entry.front for entry in board.entries if (entry.params["y"], entry.params["x"], entry.params["fail"]) == (2, 0.2, "none"))
    text = render(board.table(), width=200)
    assert "ValueError: a deliberate failure" in text and "ValueError" not in render(board.table(hide_failed=True), width=200)


def test_the_front_holds_what_nothing_else_beats(swept: Path):
    board = Leaderboard(swept)
    done = [entry.values for entry in board.entries if entry.values]
    for entry in board.entries:
        if entry.values:
            beaten = any(a <= entry.values[0] and b >= entry.values[1] and [a, b] != entry.values for a, b in done)
            assert entry.front != beaten


def test_the_tables_can_be_read_back(swept: Path):
    from astropy.table import Table

    Leaderboard(swept).write()
    rows = list(csv.DictReader((swept / "results.csv").open()))
    table = Table.read(swept / "results.ecsv")
    assert len(rows) == len(table) == 12 and table.meta["objectives"] == ["score", "other"]
    assert float(rows[0]["score"]) == pytest.approx(table["score"][0]) == min(table["score"])


def test_the_page_is_one_file_that_needs_no_network(swept: Path):
    Leaderboard(swept).write()
    text = (swept / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=|@import|url\(|https?://(?!www\.w3\.org)""", text)
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])  # pyright: ignore
    assert len(data["entries"]) == 12 and data["dashboard"].startswith("optuna-dashboard")


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_draws_itself_in_a_browser(swept: Path, tmp_path: Path):
    Leaderboard(swept).write()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    page = ["--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=2000", "--dump-dom", f"file://{swept}/report.html"]
    answer = subprocess.run(["chromium", *options, *page], capture_output=True, text=True, timeout=60)
    assert answer.stdout.count('class="path"') >= 6 and answer.stdout.count('class="dot"') >= 12 and answer.stdout.count("<tr") == 13


def test_the_report_is_rebuilt_from_the_runs_alone(swept: Path, tmp_path: Path):
    copy = shutil.copytree(swept, tmp_path / "copy")
    (copy / "study.log").unlink()
    assert "6 complete, 6 failed" in call("report.py", f"sweep={copy}", "--hide-failed")
    record = next(copy.glob("*/trial.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "running", "worker": "gone", "values": None}))
    (record.parent / "metrics.json").unlink(missing_ok=True)
    assert "1 lost" in call("report.py", f"sweep={copy}")


def test_a_plain_multirun_has_a_leaderboard(swept: Path, tmp_path: Path):
    for record in records(swept).values():
        if record["state"] == "complete":
            shutil.copytree(swept / record["name"], tmp_path / record["name"], ignore=shutil.ignore_patterns("trial.json"))
    board = Leaderboard(tmp_path)
    assert board.varying == ["x", "y"] and board.entries[0].values == [
        min(entry.values[0] for entry in board.entries if entry.values),
        board.entries[0].values[1],
    ]  # pyright: ignore


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(SpectangleError, match="no runs"):
        Leaderboard(tmp_path)
    assert "must be one of" in call("report.py", "kind=nonsense", code=1)
    assert "at least two" in call("report.py", "kind=diff", code=1)


def test_the_difference_of_two_runs(swept: Path):
    one, two = (str(swept / records(swept)[f"x={x} y=1 fail=none"]["name"]) for x in (0.1, 0.2))
    output = call("report.py", "kind=diff", f"runs=[{one},{two}]")
    assert re.search(r"x +│ +0.1 +│ +0.2 +│ +\+100.0 %", output) and "fail" not in output
    assert "1 of 2 differ" in render(difference_table("t", ["a", "b"], [{"k": 1, "l": 2}, {"k": 1, "l": 3}]))


def made_up(folder: Path, values: dict[tuple[float, float], list[float]]) -> Leaderboard:
    """The leaderboard of a sweep over a and b that exists on paper only."""
    for number, ((a, b), found) in enumerate(values.items()):
        write_beside(
            folder / f"c{number}" / "trial.json", json.dumps({"name": f"c{number}", "params": {"a": a, "b": b}, "state": "complete", "values": found})
        )
    write_sweep_record(folder, {"objectives": ["one", "two"], "directions": ["minimize", "maximize"], "swept": ["a", "b"]})
    return Leaderboard(folder)


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
def test_each_sweep_of_the_project_can_be_planned(name: str, tmp_path: Path):
    assert "Nothing was started" in call("train.py", "-cd", "sweeps", "-cn", name, "dry_run=true", f"sweep.dir={tmp_path}")


def test_each_sweep_has_a_smoke_variant():
    assert {name for name in SWEEPS if name.endswith("_smoke")} == {f"{name}_smoke" for name in SWEEPS if not name.endswith("_smoke")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SWEEPS if name.endswith("_smoke")])
def test_the_smoke_sweeps_run(name: str, tmp_path: Path):
    output = call("train.py", "-cd", "sweeps", "-cn", name, f"sweep.dir={tmp_path}", "sweep.workers=2")
    assert "failed" not in output and (tmp_path / "report.html").is_file()


def test_folds_are_averaged_over_seeds_and_spread_over_folds(tmp_path):
    """Two seeds of each fold: the spread is that of the folds' means."""
    from spectangle.reports.folds import fold_groups, fold_table

    mae = {(0, 0): 100.0, (0, 1): 120.0, (1, 0): 130.0, (1, 1): 150.0}
    for (fold, seed), value in mae.items():
        run = tmp_path / f"{fold}-{seed}"
        (run / ".hydra").mkdir(parents=True)
        config = {"data": {"folds": 5, "fold": fold}, "seed": seed, "lambdas": {"teff": -1.0, "fe_h": 1.0}}
        (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
        metrics = {"test/latent/teff/mae": value, "test/spectra/teff/mae": 2 * value, "test/latent/fe_h/mae": 0.5, "excess/fe_h": 0.01 * fold}
        (run / "metrics.json").write_text(json.dumps(metrics | {"excess_is_upper_bound": 1.0}))
    groups = fold_groups(tmp_path)
    assert list(groups) == ["entangled teff; disentangled fe_h"]
    table = fold_table(*next(iter(groups.items())))
    text = render(table)
    assert "2 of 5 folds, 2 seeds" in text and "125 ± 21" in text and "0.500 ± 0.000" in text and "(at most)" in text
    assert "0.005 ± 0.007" in text


def test_folds_need_runs_with_folds(tmp_path):
    from spectangle.reports.folds import fold_groups

    with pytest.raises(SpectangleError, match="no finished run with data.folds"):
        fold_groups(tmp_path)


def test_folds_are_drawn_with_each_star_as_a_test_star(toy_survey, tmp_path, monkeypatch, capsys):
    from spectangle.figures import predictions
    from spectangle.reports import fold_figures

    options = [f"data.path={toy_survey}", "data.folds=2", "model=tiny", "lambdas=first_pair", "trainer.max_epochs=2", "threads=1", "regressor=torch"]
    quick = ["callbacks.probes=null", "callbacks.figures=null", "-m", "data.fold=0,1", f"hydra.sweep.dir={tmp_path}"]
    call("train.py", "data=survey", *options, *quick)
    drawn = []
    monkeypatch.setattr(fold_figures, "prediction_figure", lambda *a, **k: drawn.append(a) or predictions.prediction_figure(*a, **k))
    code, printed, errors = Command(monkeypatch, capsys)("report", "kind=folds", f"sweep={tmp_path}")
    assert code == 0 and "2 of 2 folds" in printed, errors
    written = sorted(path.name for path in (tmp_path / "figures").glob("*.png"))
    assert written == ["teff-logg-kiel_chemical.png", "teff-logg-predicted.png", "teff-logg-tsne.png"]
    predicted, catalogue = drawn[0][:2]
    assert len(catalogue["teff"]) == len(predicted["teff"]) == 400
