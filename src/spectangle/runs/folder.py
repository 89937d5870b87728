"""The run folder: one experiment, explained by its own files. Nothing else parses a run folder.

.hydra/         config and overrides          manifest.json   commit, versions, survey, seed, command, host
checkpoints/    best.ckpt, last.ckpt          metrics.csv     one row per epoch
regressors/     fitted regressors (skops)     metrics.json    final numbers; its presence means "finished"
figures/        pictures                      train.log       what was printed
derived/        what spectangle predict and spectangle explore computed from the run and the survey; may be deleted
"""

import csv
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from spectangle.configs.label_lambdas import lambda_by_label
from spectangle.configs.resolvers import resolved_choices
from spectangle.errors import SpectangleError
from spectangle.files import write_beside
from spectangle.runs.environment import environment
from spectangle.runs.ownership import check_owner

__all__ = ["Run", "metric_value", "required"]


class Run:
    """One run folder.

    Arguments:
        path: The folder.
        must_exist: Refuse a folder that is not a run.

    Raises:
        SpectangleError: The folder is no run, or a file that was asked for is not there yet.
    """

    def __init__(self, path: str | Path, must_exist: bool = True):
        self.path = Path(path)
        if must_exist and not (self.path / ".hydra" / "config.yaml").is_file() and not self.last_checkpoint.is_file():
            exported = (
                " It is an exported model, which has no stars; spectangle predict and spectangle generate with "
                "spectra=FILE can use it."
            )
            hint = exported if (self.path / "model.safetensors").is_file() else ""
            below = [str(place.parents[1]) for place in sorted(self.path.glob("*/.hydra/config.yaml"))]
            if below:  # a configuration with seeds, or a sweep
                hint = f" There are runs in it: {', '.join(below[:3])}{', ...' if len(below) > 3 else ''}."
            raise SpectangleError(
                f"{self.path} is not a run folder: it has no .hydra/config.yaml. Give the folder that spectangle "
                f"train printed.{hint}"
            )

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def finished(self) -> bool:
        """Whether the final numbers are there, and whole: a full disk may have cut them off."""
        try:
            return isinstance(json.loads((self.path / "metrics.json").read_text()), dict)
        except (OSError, ValueError):
            return False

    @property
    def written_config(self) -> dict[str, Any]:
        """The choices of the run as they were written, interpolations included."""
        from omegaconf import OmegaConf

        path = self.path / ".hydra" / "config.yaml"
        try:
            return OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # pyright: ignore
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise SpectangleError(
                f"{path} cannot be read ({error}); the run cannot be understood without it: train it again elsewhere."
            ) from error

    @property
    def config(self) -> dict[str, Any]:
        """The choices of the run as plain containers, with every value that another key gives; what a machine gives
        stays as it was written. ``lambdas`` names each label of the survey, once the run has read it.
        """
        found = resolved_choices(self.written_config)
        if not self.units:
            return found
        attributes = (found.get("labels") or {}).get("attributes") or []
        return found | {"lambdas": lambda_by_label(found["lambdas"], list(self.units), attributes)}

    @property
    def overrides(self) -> list[str]:
        """The overrides of the command line that made the run."""
        return yaml.safe_load((self.path / ".hydra" / "overrides.yaml").read_text()) or []

    @property
    def choices(self) -> dict[str, Any]:
        """The same by key, with values as YAML reads them."""
        pairs = (item.lstrip("+").split("=", 1) for item in self.overrides if "=" in item)
        return {key: yaml.safe_load(value) for key, value in pairs}

    @property
    def manifest(self) -> dict[str, Any]:
        return self._json("manifest.json")

    @property
    def units(self) -> dict[str, str]:
        """Unit of each label, in the order of the survey; empty before the run has read it."""
        try:
            return self.manifest.get("survey", {}).get("units", {})
        except SpectangleError:
            return {}

    @property
    def metrics(self) -> dict[str, float]:
        """Final numbers by metric path."""
        if not self.finished:
            raise SpectangleError(
                f"{self.path} is not finished (no metrics.json); go on with: spectangle train resume={self.path}"
            )
        return self._json("metrics.json")

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics by epoch."""
        try:
            lines = (self.path / "metrics.csv").read_text(errors="replace").splitlines()
        except OSError:
            return []
        rows = (_numbers(row) for row in csv.DictReader(lines))
        return [row for row in rows if "epoch" in row]  # a line that was cut off is no epoch

    @property
    def survey_path(self) -> Path:
        """The survey that the run was trained on; a relative path counts from the folder that spectangle train ran
        in.
        """
        path = Path(self.manifest["survey"]["path"])
        hydra = self.path / ".hydra" / "hydra.yaml"
        if path.is_absolute() or not hydra.is_file():
            return path
        return Path(yaml.safe_load(hydra.read_text())["hydra"]["runtime"]["cwd"]) / path

    @property
    def checkpoint_hash(self) -> str:
        """SHA-256 of the best checkpoint and of the fitted regressor: what a prediction depends on."""
        files = (self.best_checkpoint, self.path / "regressors" / "latent.skops")
        return hashlib.sha256(
            b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files if file.is_file())
        ).hexdigest()

    def derived(self, name: str) -> Path:
        """Where a file that was computed from the run is kept."""
        return self.path / "derived" / name

    def write_manifest(self, **facts: Any) -> None:
        """Write what the run was made with, any facts that are given, and every start so far."""
        try:
            starts = self.manifest.get("starts", [])
        except SpectangleError:  # the first start, or a file that a full disk cut off
            starts = []
        now = environment() | facts
        start = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": now["git"]["commit"]} | {
            key: now[key] for key in ("command", "host", "threads", "pack") if key in now
        }
        self._write("manifest.json", json.dumps(now | {"starts": [*starts, start]}, indent=2) + "\n")

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write the final numbers: the last thing a run does."""
        self._write("metrics.json", json.dumps(dict(sorted(metrics.items())), indent=2) + "\n")

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write the metrics by epoch."""
        columns = ["epoch", *sorted({key for row in rows for key in row} - {"epoch"})]
        lines = [",".join(columns)] + [",".join(_cell(row.get(key)) for key in columns) for row in rows]
        self._write("metrics.csv", "\n".join(lines) + "\n")

    def _write(self, name: str, text: str) -> None:
        check_owner(self.path)
        write_beside(self.path / name, text)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise SpectangleError(f"{self.path} has no {name}; it did not start, or is not a run folder.") from None
        except json.JSONDecodeError as error:
            raise SpectangleError(f"{self.path / name} is not JSON ({error}); delete it and resume the run.") from error


def metric_value(metrics: Mapping[str, float], name: str) -> float | None:
    """A metric by its path, or the sum of several (``val/excess/teff + val/excess/logg``); None if one was not
    measured.
    """
    values = [metrics.get(part.strip()) for part in name.split(" + ")]
    return None if any(value is None for value in values) else sum(values)  # pyright: ignore


def required(run: str | None) -> str:
    """The folder that ``run=`` names.

    Raises:
        SpectangleError: It names none.
    """
    if not run:
        raise SpectangleError("run is empty; give the folder of a finished run: run=runs/2026-01-01/12-00-00.")
    return run


def _numbers(row: Mapping[Any, Any]) -> dict[str, float]:
    try:
        return {key: float(value) for key, value in row.items() if value not in ("", None)}
    except (TypeError, ValueError):
        return {}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
