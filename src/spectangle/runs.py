"""The run folder: one experiment, explained by its own files. Nothing else parses a run folder.

    .hydra/         config and overrides          manifest.json   commit, versions, survey, seed, command, host
    checkpoints/    best.ckpt, last.ckpt          metrics.csv     one row per epoch
    regressors/     fitted regressors (skops)     metrics.json    final numbers; its presence means "finished"
    figures/        pictures                      train.log       what was printed
"""

import csv
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spectangle import __version__
from spectangle.errors import SpectangleError

if TYPE_CHECKING:
    from spectangle.model import DisentanglingAutoencoder

__all__ = ["Run", "list_runs", "write_beside"]

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
            raise SpectangleError(f"{self.path} is not a run folder: it has no .hydra/config.yaml. Give the folder that train.py printed.")

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """The resolved choices of the run, as plain containers."""
        from omegaconf import OmegaConf

        return OmegaConf.to_container(OmegaConf.load(self.path / ".hydra" / "config.yaml"), resolve=False)  # pyright: ignore

    @property
    def overrides(self) -> list[str]:
        """The overrides of the command line that made the run."""
        return yaml.safe_load((self.path / ".hydra" / "overrides.yaml").read_text()) or []

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
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        with path.open() as file:
            return [{key: float(value) for key, value in row.items() if value not in ("", None)} for row in csv.DictReader(file)]

    def model(self, checkpoint: str = "best") -> "DisentanglingAutoencoder":
        """The trained model, in evaluation mode on the CPU."""
        from spectangle.model import DisentanglingAutoencoder

        path = self.path / "checkpoints" / f"{checkpoint}.ckpt"
        if not path.is_file():
            raise SpectangleError(f"{self.path} has no {checkpoint} checkpoint yet; train it: python train.py resume={self.path}")
        return DisentanglingAutoencoder.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()

    def write_manifest(self, **facts: Any) -> None:
        """Write what the run was made with, and any facts that are given."""
        write_beside(self.path / "manifest.json", json.dumps(_environment() | facts, indent=2) + "\n")

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write the final numbers: the last thing a run does."""
        write_beside(self.path / "metrics.json", json.dumps(dict(sorted(metrics.items())), indent=2) + "\n")

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write the metrics by epoch."""
        columns = ["epoch", *sorted({key for row in rows for key in row} - {"epoch"})]
        lines = [",".join(columns)] + [",".join(_cell(row.get(key)) for key in columns) for row in rows]
        write_beside(self.path / "metrics.csv", "\n".join(lines) + "\n")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise SpectangleError(f"{self.path} has no {name}; it did not start, or is not a run folder.") from None
        except json.JSONDecodeError as error:
            raise SpectangleError(f"{self.path / name} is not JSON ({error}); delete it and resume the run.") from error


def list_runs(folder: str | Path) -> Iterator[Run]:
    """Yield every run below a folder, in the order of their paths."""
    for path in sorted(Path(folder).glob("**/.hydra/config.yaml")):
        yield Run(path.parents[1])


def write_beside(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SpectangleError(f"{path} could not be written ({error}); free some space or choose another folder.") from error


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _environment() -> dict[str, Any]:
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
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
