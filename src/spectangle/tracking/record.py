"""What a finished run shows in W&B beyond curves: its tables, its figures and its artifacts.

Lineage: the survey goes into the run, the model comes out of it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectangle.evaluation.results_table import SOURCES
from spectangle.runs.folder import Run

__all__ = [
    "ACCURACY",
    "EVIDENCE",
    "downstream_rows",
    "log_artifacts",
    "log_results",
    "probe_rows",
    "results",
    "staged_in",
]

ACCURACY = ("mae", "mean", "sigma", "sigma_mad", "sigma_abs", "r2")
EVIDENCE = {
    "probes R2": "probe/{}/r2",
    "R2 low": "probe/{}/r2_low",
    "R2 high": "probe/{}/r2_high",
    "permuted labels": "probe/{}/control",
    "raw spectra R2": "reference/{}/r2",
    "lost": "disentanglement/{}",
    "retention": "retention/{}",
    "population floor": "floor/{}",
    "excess": "excess/{}",
    "excess low": "excess_low/{}",
    "excess high": "excess_high/{}",
}
MODEL_FILES = ("checkpoints/best.ckpt", "regressors/latent.skops", "manifest.json", "metrics.json")
RECORD_FILES = (
    "manifest.json",
    "metrics.json",
    "metrics.csv",
    "train.log",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
)


def results(metrics: Mapping[str, float]) -> dict[str, float]:
    """Final numbers, those of the best epoch as ``best/val/...``: the curve itself is ``val/...``."""
    return {f"best/{key}" if key.startswith(("train/", "val/")) else key: value for key, value in metrics.items()}


def downstream_rows(
    metrics: Mapping[str, float], labels: Sequence[str], units: Mapping[str, str], signs: Mapping[str, str]
) -> tuple[list[str], list[list]]:
    """The final table: errors of each label (predicted - catalogue, test stars) from each representation."""
    rows = []
    for label in labels:
        for source in SOURCES:
            values = [metrics.get(f"{source}/{label}/{name}") for name in ACCURACY]
            if values[0] is not None:
                rows.append([label, units[label], signs[label], source.removeprefix("test/"), *values])
    return ["label", "unit", "in the latent", "read from", *ACCURACY], rows


def probe_rows(
    metrics: Mapping[str, float], labels: Sequence[str], signs: Mapping[str, str]
) -> tuple[list[str], list[list]]:
    """What independent probes read from the latent, label by label; an excess is an upper bound where the errors of the
    kept labels are unknown.
    """
    meaning = "upper bound" if metrics.get("excess_is_upper_bound") else "measured"
    rows = [
        [
            label,
            signs[label],
            *(metrics.get(path.format(label)) for path in EVIDENCE.values()),
            meaning if f"excess/{label}" in metrics else None,
        ]
        for label in labels
        if f"probe/{label}/r2" in metrics
    ]
    return ["label", "in the latent", *EVIDENCE, "excess is"], rows


def log_results(
    wandb_run: Any, run: Run, metrics: Mapping[str, float], signs: Mapping[str, str], units: Mapping[str, str]
) -> None:
    """Log tables and figures of a finished run."""
    import wandb

    labels = list(signs)
    tables = {
        "downstream": downstream_rows(metrics, labels, units, signs),
        "probes": probe_rows(metrics, labels, signs),
    }
    media: dict[str, Any] = {
        f"tables/{name}": wandb.Table(columns=list[Any](columns), data=rows)
        for name, (columns, rows) in tables.items()
        if rows
    }
    media |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted((run.path / "figures").glob("*.png"))}
    with staged_in(run.path):
        wandb_run.log(media)


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Have W&B keep the files of tables in a run folder: they are sent later, perhaps from another machine, and lie in
    the home else.
    """
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").resolve())
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR")
        os.environ |= {} if before is None else {"WANDB_DATA_DIR": before}


def log_artifacts(wandb_run: Any, run: Run, exported: Sequence[Path] | None) -> None:
    """Log the artifacts of a finished run: the survey that it used, its record, and its model.

    Arguments:
        wandb_run: The W&B run.
        run: The run.
        exported: Files of the exported model; None: no model artifact.
    """
    facts = {"survey": run.manifest["survey"]["content_hash"], "run": wandb_run.id}
    _use(wandb_run, survey_artifact(run))
    wandb_run.log_artifact(_artifact(f"record-{wandb_run.id}", "record", _as_it_is(run), RECORD_FILES, facts))
    if exported is not None:
        model = _artifact(f"model-{wandb_run.id}", "model", run.path, MODEL_FILES, facts | {"exported": bool(exported)})
        for path in exported:
            _add(model, path, path.name)  # at the top: spectangle.load takes the folder that was downloaded
        wandb_run.log_artifact(model)


def _as_it_is(run: Run) -> Path:
    """Copies of the small files of a run in ``wandb/record/``: the command may write to the run's own before they are
    sent.
    """
    folder = run.path / "wandb" / "record"
    for file in RECORD_FILES:
        if (run.path / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / file, folder / file)
    return folder


def survey_artifact(run: Run) -> Any:
    """The survey as a reference: its hash and where it lies, none of its bytes."""
    import wandb

    facts = run.manifest["survey"]
    artifact = wandb.Artifact(f"survey-{facts['content_hash'][:16]}", type="survey", metadata=dict(facts))
    artifact.add_reference(run.survey_path.resolve().as_uri(), name="survey.h5", checksum=False)
    return artifact


def _use(wandb_run: Any, artifact: Any) -> None:
    """Name an artifact as the run's input.

    ``Run.use_artifact`` waits for the server and refuses to work offline; the message that it sends does neither.
    """
    wandb_run._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def _artifact(name: str, kind: str, folder: Path, files: Sequence[str], facts: dict[str, Any]) -> Any:
    import wandb

    artifact = wandb.Artifact(name.replace("=", "-"), type=kind, metadata=facts)
    for file in files:
        if (folder / file).is_file():
            _add(artifact, folder / file, file)
    return artifact


def _add(artifact: Any, path: Path, name: str) -> None:
    artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)  # no second copy on disk
