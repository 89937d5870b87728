"""The report of a sweep as one HTML file that needs no network: ``page.html`` with the sweep's data inside."""

import html
import json
import logging
import math
import time
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

from spectangle.files import write_beside
from spectangle.runs.folder import Run
from spectangle.sweeps.leaderboard import Entry, Leaderboard
from spectangle.sweeps.liveness import alive

__all__ = ["dashboard_command", "importance", "page", "write_page", "write_report"]

CURVES = 80  # learning curves at most; the best ones
POINTS = 200  # epochs of a curve at most
REFRESH_S = 30  # between two looks of a page at a sweep that runs
FILES = ("figures/*.png", "seed=*/figures/*.png", "*.log")  # what a leaderboard's row links to
LEAST, FEW = 4, 6  # configurations for any importance, and for each parameter of one that can be believed


def write_report(board: Leaderboard) -> None:
    """Write results.csv, results.ecsv and report.html into the sweep folder."""
    board.write_tables()
    write_page(board)


def write_page(board: Leaderboard) -> None:
    """Write report.html into the sweep folder."""
    write_beside(board.folder / "report.html", page(board))


def page(board: Leaderboard) -> str:
    """The HTML text."""
    template = resources.files("spectangle.sweeps").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(_clean(report_data(board)), separators=(",", ":")).replace("</", "<\\/")
    return template.replace("__TITLE__", html.escape(board.folder.name)).replace("__DATA__", data)


def report_data(board: Leaderboard) -> dict[str, Any]:
    """Everything that the page shows, as plain containers."""
    seeds = board.record.get("seeds")
    ended = sorted((entry for entry in board.entries if entry.ended), key=lambda entry: entry.ended or 0)
    order = {entry.name: number for number, entry in enumerate(ended)}
    unfinished = bool(board.record) and bool({"running", "waiting"} & set(board.counts()))
    return {
        "folder": str(board.folder),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "time": round(time.time()),
        "objectives": board.objectives,
        "directions": board.directions,
        "varying": board.varying,
        "metrics": board.metric_names,
        "counts": board.counts(),
        "seeds": seeds,
        "entries": [_entry(entry, board.folder, order.get(entry.name)) for entry in board.entries],
        "importance": {name: importance(board, index) for index, name in enumerate(board.objectives)},
        "importance_note": importance_note(board),
        "note": board.note,
        "curves": _curves(board, seeds),
        "dashboard": dashboard_command(board),
        "live": unfinished and at_work(board),
        "stopped": unfinished and not at_work(board),
        "refresh_s": REFRESH_S,
    }


def at_work(board: Leaderboard) -> bool:
    """Whether a sweep runs: a configuration does, or a worker is alive that will take one."""
    return "running" in board.counts() or any(alive(path) for path in (board.folder / "workers").glob("*.json"))


def importance(board: Leaderboard, index: int) -> dict[str, float]:
    """How much of an objective's variance each parameter explains (fANOVA: Hutter et al. 2014, ICML 32, 754).

    Optuna's default evaluator (PED-ANOVA) compares the best configurations with the others: other numbers, and far from
    the main effects of a small grid. Empty where too little is known, see :func:`importance_note`.
    """
    import optuna

    done, keys = _judged(board)
    if len(done) < LEAST or not keys:
        return {}
    spaces = {key: _distribution([entry.params[key] for entry in done]) for key in keys}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    study = optuna.create_study(direction=board.directions[index])  # pyright: ignore
    for entry in done:
        assert entry.values is not None
        params = {
            key: entry.params[key]
            if spaces[key].__class__.__name__ != "CategoricalDistribution"
            else _text(entry.params[key])
            for key in keys
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=entry.values[index]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def importance_note(board: Leaderboard) -> str:
    """What to make of the importances: a word where there are none, or too few points to believe them."""
    done, keys = _judged(board)
    if len(done) < LEAST or not keys:
        return f"{len(done)} configurations are complete; the importance of parameters needs at least {LEAST}."
    if len(done) < FEW * len(keys):
        return f"From {len(done)} configurations for {len(keys)} parameters: a hint, not a measurement."
    return f"Share of the objective's variance over {len(done)} configurations (fANOVA)."


def _judged(board: Leaderboard) -> tuple[list[Entry], list[str]]:
    """The configurations that have values, and the parameters that all of them have."""
    done = [entry for entry in board.entries if entry.values and entry.state == "complete"]
    return done, [key for key in board.varying if all(key in entry.params for entry in done)]


def dashboard_command(board: Leaderboard) -> str:
    """The command that opens the study in optuna-dashboard."""
    if not board.record:
        return ""
    return f"optuna-dashboard {board.record.get('storage') or board.folder / 'study.log'}"


def _entry(entry: Entry, folder: Path, order: int | None) -> dict[str, Any]:
    names = ("name", "params", "state", "values", "spread", "trial", "attempts", "seconds", "front", "metrics")
    files = [path for pattern in FILES for path in sorted(entry.path.glob(pattern))]
    places = {
        "folder": entry.path.relative_to(folder).as_posix(),
        "files": [path.relative_to(folder).as_posix() for path in files],
    }
    error = entry.last_error if entry.state in ("failed", "lost") else ""
    return {name: getattr(entry, name) for name in names} | places | {"order": order, "last_error": error}


def _curves(board: Leaderboard, seeds: list[int] | None) -> dict[str, dict[str, list]]:
    """Validation metrics by epoch of the best and of the unfinished runs; of the first seed where there are several."""
    curves = {}
    for entry in board.entries[:CURVES]:
        rows = Run(entry.path if seeds is None else entry.path / f"seed={seeds[0]}", must_exist=False).history
        keys = [
            key for key in (rows[0] if rows else {}) if key.startswith(("val/reconstruction", "val/discriminator_gain"))
        ]
        step = max(1, len(rows) // POINTS)
        curves[entry.name] = {key: [row.get(key) for row in rows[::step]] for key in keys} | {
            "epoch": [row["epoch"] for row in rows[::step]]
        }
    return curves


def _distribution(values: list[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numeric and min(values) < max(values):
        return FloatDistribution(min(values), max(values), log=min(values) > 0 and max(values) / min(values) >= 100)
    return CategoricalDistribution(sorted({_text(value) for value in values}))


def _text(value: Any) -> str:
    return json.dumps(value)


def _clean(node: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(node, dict):
        return {str(key): _clean(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_clean(value) for value in node]
    if isinstance(node, float):
        return float(f"{node:.6g}") if math.isfinite(node) else None  # six digits are enough to draw
    return str(node) if isinstance(node, Path) else node
