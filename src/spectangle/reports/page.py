"""The report of a sweep as one HTML file that needs no network: ``page.html`` with the sweep's data inside."""

import html
import json
import logging
import math
import time
import warnings
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectangle.runs import Run

if TYPE_CHECKING:
    from spectangle.reports.leaderboard import Entry, Leaderboard

__all__ = ["dashboard_command", "importance", "page"]

CURVES = 80  # learning curves at most; the best ones
POINTS = 200  # epochs of a curve at most


def page(board: "Leaderboard") -> str:
    """The HTML text."""
    template = resources.files("spectangle.reports").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(_clean(report_data(board)), separators=(",", ":")).replace("</", "<\\/")
    return template.replace("__TITLE__", html.escape(board.folder.name)).replace("__DATA__", data)


def report_data(board: "Leaderboard") -> dict[str, Any]:
    """Everything that the page shows, as plain containers."""
    seeds = board.record.get("seeds")
    ended = sorted((entry for entry in board.entries if entry.ended), key=lambda entry: entry.ended or 0)
    order = {entry.name: number for number, entry in enumerate(ended)}
    return {
        "folder": str(board.folder),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "objectives": board.objectives,
        "directions": board.directions,
        "varying": board.varying,
        "metrics": board.metric_names,
        "counts": board.counts(),
        "seeds": seeds,
        "entries": [_entry(entry, order.get(entry.name)) for entry in board.entries],
        "importance": {name: importance(board, index) for index, name in enumerate(board.objectives)},
        "curves": _curves(board, seeds),
        "dashboard": dashboard_command(board),
    }


def importance(board: "Leaderboard", index: int) -> dict[str, float]:
    """How much each parameter matters for an objective (Optuna's default evaluator); empty where too little is known."""
    import optuna

    done = [entry for entry in board.entries if entry.values and entry.state == "complete"]
    keys = [key for key in board.varying if all(key in entry.params for entry in done)]
    if len(done) < 4 or not keys:
        return {}
    spaces = {key: _distribution([entry.params[key] for entry in done]) for key in keys}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    study = optuna.create_study(direction=board.directions[index])  # pyright: ignore
    for entry in done:
        assert entry.values is not None
        params = {key: entry.params[key] if spaces[key].__class__.__name__ != "CategoricalDistribution" else _text(entry.params[key]) for key in keys}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=entry.values[index]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def dashboard_command(board: "Leaderboard") -> str:
    """The command that opens the study in optuna-dashboard."""
    if not board.record:
        return ""
    return f"optuna-dashboard {board.record.get('storage') or board.folder / 'study.log'}"


def _entry(entry: "Entry", order: int | None) -> dict[str, Any]:
    names = ("name", "params", "state", "values", "spread", "reason", "trial", "attempts", "seconds", "front", "metrics")
    return {name: getattr(entry, name) for name in names} | {"order": order}


def _curves(board: "Leaderboard", seeds: list[int] | None) -> dict[str, dict[str, list]]:
    """Validation metrics by epoch of the best and of the unfinished runs; of the first seed where there are several."""
    curves = {}
    for entry in board.entries[:CURVES]:
        rows = Run(entry.path if seeds is None else entry.path / f"seed={seeds[0]}", must_exist=False).history
        keys = [key for key in (rows[0] if rows else {}) if key.startswith(("val/reconstruction", "val/discriminator_gain"))]
        step = max(1, len(rows) // POINTS)
        curves[entry.name] = {key: [row.get(key) for row in rows[::step]] for key in keys} | {"epoch": [row["epoch"] for row in rows[::step]]}
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
