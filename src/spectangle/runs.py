"""The run folder: one experiment, explained by its own files. Nothing else parses a run folder.

.hydra/         config and overrides          manifest.json   commit, versions, survey, seed, command, host
checkpoints/    best.ckpt, last.ckpt          metrics.csv     one row per epoch
regressors/     fitted regressors (skops)     metrics.json    final numbers; its presence means "finished"
figures/        pictures                      train.log       what was printed
derived/        what predict.py and explore.py computed from the run and the survey; may be deleted
"""

import csv
import hashlib
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from spectangle import __version__
from spectangle.errors import SpectangleError
from spectangle.outputs import redacted, write_beside
from spectangle.ownership import check_owner
from spectangle.resolvers import OF_THE_CHOICES, register_resolvers

if TYPE_CHECKING:
    from spectangle.data import SpectraDataModule
    from spectangle.model import DisentanglingAutoencoder

__all__ = ["ConfigurationFolder", "Run", "differing", "flat", "list_runs", "made_once", "measure", "required", "sweep_record", "write_sweep_record"]

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "optuna", "scikit-learn", "numpy", "h5py")


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
            exported = " It is an exported model, which has no stars; predict.py and generate.py with spectra=FILE can use it."
            hint = exported if (self.path / "model.safetensors").is_file() else ""
            raise SpectangleError(f"{self.path} is not a run folder: it has no .hydra/config.yaml. Give the folder that train.py printed.{hint}")

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
            raise SpectangleError(f"{path} cannot be read ({error}); the run cannot be understood without it: train it again elsewhere.") from error

    @property
    def config(self) -> dict[str, Any]:
        """The choices of the run as plain containers, with every value that another key gives; what a machine gives stays as it was written."""
        from omegaconf import OmegaConf

        register_resolvers()
        written = self.written_config
        return _resolved(written, OmegaConf.create(written))

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
    def metrics(self) -> dict[str, float]:
        """Final numbers by metric path."""
        if not self.finished:
            raise SpectangleError(f"{self.path} is not finished (no metrics.json); go on with: python train.py resume={self.path}")
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

    def model(self, checkpoint: str = "best") -> "DisentanglingAutoencoder":
        """The trained model, in evaluation mode on the CPU."""
        from spectangle.model import DisentanglingAutoencoder

        path = self.path / "checkpoints" / f"{checkpoint}.ckpt"
        if not path.is_file():
            raise SpectangleError(f"{self.path} has no {checkpoint} checkpoint yet; train it: python train.py resume={self.path}")
        try:
            return DisentanglingAutoencoder.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
        except (RuntimeError, TypeError, KeyError) as error:
            made_by, reason = self.manifest.get("spectangle", "?"), str(error).splitlines()[-1].strip(" .")
            raise SpectangleError(
                f"{path} does not fit this version of spectangle ({__version__}; the run was made by {made_by}): {reason}. "
                "Use the version of the run's manifest.json, or train it again."
            ) from error

    def regressor(self, representation: str = "latent") -> Any:
        """The fitted downstream regressor, ``latent`` or ``spectra`` (the baseline)."""
        from spectangle.regression import load_regressor

        path = self.path / "regressors" / f"{representation}.skops"
        if not path.is_file():
            raise SpectangleError(
                f"{self.path} has no regressor on the {representation} ({path.name} is missing); go on with: python train.py resume={self.path}"
            )
        return load_regressor(path)

    def data(self, survey: str | Path | None = None) -> "SpectraDataModule":
        """The stars of the run, split as they were in training.

        Arguments:
            survey: Where the survey file lies now, if it was moved.

        Raises:
            SpectangleError: The survey is gone, or is not the one that the run was trained on.
        """
        from spectangle.data import SpectraDataModule

        options = self._data_options()
        path = Path(survey) if survey else self.survey_path
        if not path.is_file():
            raise SpectangleError(f"The survey of {self.path} is not at {path} any more; say where it is: survey=FILE.")
        data = SpectraDataModule(str(path), **options)
        data.setup()
        if data.content_hash != self.manifest["survey"]["content_hash"]:
            raise SpectangleError(f"{path} is not the survey that {self.path} was trained on (its content_hash differs); give that one: survey=FILE.")
        return data

    @property
    def survey_path(self) -> Path:
        """The survey that the run was trained on; a relative path counts from the folder that train.py ran in."""
        path = Path(self.manifest["survey"]["path"])
        hydra = self.path / ".hydra" / "hydra.yaml"
        if path.is_absolute() or not hydra.is_file():
            return path
        return Path(yaml.safe_load(hydra.read_text())["hydra"]["runtime"]["cwd"]) / path

    @property
    def survey_origin(self) -> str:
        """What the run was trained on, in the words of its survey; of older runs, where the survey is still there."""
        from spectangle.survey import Survey

        if origin := self.manifest["survey"].get("origin"):
            return origin
        try:
            with Survey(self.survey_path) as survey:
                return survey.attributes["origin"]
        except SpectangleError:
            return f"unknown stars (survey {self.survey_path.name})"

    @property
    def checkpoint_hash(self) -> str:
        """SHA-256 of the best checkpoint and of the fitted regressor: what a prediction depends on."""
        files = (self.best_checkpoint, self.path / "regressors" / "latent.skops")
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files if file.is_file())).hexdigest()

    def derived(self, name: str) -> Path:
        """Where a file that was computed from the run is kept."""
        return self.path / "derived" / name

    def _data_options(self) -> dict[str, Any]:
        """What decides which stars are where, as :class:`SpectraDataModule` takes it."""
        from omegaconf import OmegaConf

        node = OmegaConf.load(self.path / ".hydra" / "config.yaml").data
        wanted = ("labels", "n_stars", "test_fraction", "validation_fraction", "folds", "fold", "split_seed", "max_masked_fraction")
        options = {key: OmegaConf.to_container(node)[key] for key in wanted if key in node}  # pyright: ignore
        if "EmbeddedSurvey" in str(node.get("_target_", "")):
            options.pop("n_stars", None)  # there it is the size of the survey
        return options

    def write_manifest(self, **facts: Any) -> None:
        """Write what the run was made with, any facts that are given, and every start so far."""
        try:
            starts = self.manifest.get("starts", [])
        except SpectangleError:  # the first start, or a file that a full disk cut off
            starts = []
        now = _environment() | facts
        start = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": now["git"]["commit"]} | {key: now[key] for key in ("command", "host")}
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


class ConfigurationFolder:
    """The folder of one configuration of a sweep: its record, and its run or its run per seed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def record(self) -> dict[str, Any]:
        """Parameters, state and objectives, as far as they are known."""
        try:
            found = json.loads((self.path / "trial.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_record(self, **facts: Any) -> None:
        """Add facts to the record."""
        write_beside(self.path / "trial.json", json.dumps(self.record | facts, indent=2) + "\n")

    def runs(self, seeds: Sequence[int] | None = None) -> list[Run]:
        """The runs of the configuration, one for each seed."""
        paths = [self.path] if seeds is None else [self.path / f"seed={seed}" for seed in seeds]
        return [Run(path, must_exist=False) for path in paths]

    def reject(self, seeds: Sequence[int] | None = None) -> None:
        """Set final numbers that are of no use aside, so that the runs go on from their last checkpoints."""
        for run in self.runs(seeds):
            if run.finished:
                (run.path / "metrics.json").replace(run.path / "metrics.rejected.json")

    def values(self, names: Sequence[str], seeds: Sequence[int] | None = None) -> list[list[float]] | None:
        """Metrics by name of every run, or None while one is not finished or lacks a metric."""
        runs = self.runs(seeds)
        if not all(run.finished for run in runs):
            return None
        rows = [[measure(run.metrics, name) for name in names] for run in runs]
        return None if any(value is None for row in rows for value in row) else rows  # pyright: ignore

    def objectives(self, names: Sequence[str], seeds: Sequence[int] | None = None) -> list[float] | None:
        """Metrics by name, their mean over seeds; None while a run is not finished."""
        rows = self.values(names, seeds)
        return None if rows is None else [sum(column) / len(column) for column in zip(*rows, strict=True)]


def write_sweep_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what a sweep folder holds: ``sweep.json``, for those who read it without its study."""
    write_beside(folder / "sweep.json", json.dumps(dict(facts), indent=2) + "\n")


def sweep_record(folder: Path) -> dict[str, Any]:
    """What a sweep folder holds; nothing for a plain Hydra multirun, and where the file is damaged."""
    try:
        found = json.loads((folder / "sweep.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def measure(metrics: Mapping[str, float], name: str) -> float | None:
    """A metric by its path, or the sum of several (``val/excess/teff + val/excess/logg``); None if one was not measured."""
    values = [metrics.get(part.strip()) for part in name.split(" + ")]
    return None if any(value is None for value in values) else sum(values)  # pyright: ignore


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys."""
    if isinstance(node, Mapping) and node:
        return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: node}


def differing(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that do not have one value in all columns, in the order in which they are first seen; a missing key has None."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [key for key in keys if any(column.get(key) != columns[0].get(key) for column in columns)]


def list_runs(folder: str | Path) -> Iterator[Run]:
    """Yield every run below a folder, in the order of their paths."""
    for path in sorted(Path(folder).glob("**/.hydra/config.yaml")):
        if not any(part.startswith(".") for part in path.parent.parent.relative_to(folder).parts):  # what a sweep has set aside
            yield Run(path.parents[1])


def required(run: str | None) -> str:
    """The folder that ``run=`` names.

    Raises:
        SpectangleError: It names none.
    """
    if not run:
        raise SpectangleError("run is empty; give the folder of a finished run: run=runs/2026-01-01/12-00-00.")
    return run


@contextmanager
def made_once(path: Path, whole: Callable[[Path], bool] = Path.exists) -> Iterator[bool]:
    """Yield whether a file is still to be made, while no other process makes it: what runs share is computed once.

    Where no lock can be had (the file system knows none, or the folder is somebody else's), several may make it; each must
    write it beside and rename it.

    Arguments:
        path: The file.
        whole: Whether it is there, and is what it should be.
    """
    lock = None if whole(path) else FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if lock is not None:
            lock.acquire()
    except (NotImplementedError, OSError):
        lock = None
    try:
        yield not whole(path)
    finally:
        if lock is not None:
            lock.release()


def _resolved(node: Any, root: Any, prefix: str = "") -> Any:
    if isinstance(node, dict):
        return {key: _resolved(value, root, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items()}
    if not isinstance(node, str) or "${" not in node:
        return node
    if ":" in node and not node.startswith(tuple(f"${{{name}:" for name in OF_THE_CHOICES)):  # a folder of the machine, or the run's own
        return node
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.select(root, prefix)
        return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found
    except OmegaConfBaseException:
        return node


def _numbers(row: Mapping[Any, Any]) -> dict[str, float]:
    try:
        return {key: float(value) for key, value in row.items() if value not in ("", None)}
    except (TypeError, ValueError):
        return {}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _environment() -> dict[str, Any]:
    return {
        "command": redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "spectangle": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
    }


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        answer = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else None

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except OSError:
        return {"commit": None, "dirty": None}
