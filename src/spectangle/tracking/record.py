"""What a finished run shows in W&B beyond curves: its tables, its figures and its artifacts.

Lineage: the survey goes into the run, the model comes out of it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectangle.runs import Run

__all__ = ["ACCURACY", "EVIDENCE", "downstream_rows", "log_record", "probe_rows"]

ACCURACY = ("mae", "mean", "sigma", "sigma_mad", "sigma_abs", "r2")
EVIDENCE = {
    "best probe R2": "probe/{}/r2",
    "R2 low": "probe/{}/r2_low",
    "R2 high": "probe/{}/r2_high",
    "permuted labels": "probe/{}/control",
    "raw spectra R2": "reference/{}/r2",
    "erasure": "erasure/{}",
    "retention": "retention/{}",
    "population floor": "floor/{}",
    "excess": "excess/{}",
    "excess low": "excess_low/{}",
    "excess high": "excess_high/{}",
}
MODEL_FILES = ("checkpoints/best.ckpt", "regressors/latent.skops", "manifest.json", "metrics.json")
RECORD_FILES = ("manifest.json", "metrics.json", "metrics.csv", "train.log", ".hydra/config.yaml", ".hydra/overrides.yaml")


def downstream_rows(
    metrics: Mapping[str, float], labels: Sequence[str], units: Mapping[str, str], signs: Mapping[str, str]
) -> tuple[list[str], list[list]]:
    """The final table: errors of each label (predicted - catalogue, test stars) from each representation."""
    rows = []
    for label in labels:
        for representation in ("spectra", "latent"):
            values = [metrics.get(f"test/{representation}/{label}/{name}") for name in ACCURACY]
            if values[0] is not None:
                rows.append([label, units[label], signs[label], representation, *values])
    return ["label", "unit", "in the latent", "read from", *ACCURACY], rows


def probe_rows(metrics: Mapping[str, float], labels: Sequence[str], signs: Mapping[str, str]) -> tuple[list[str], list[list]]:
    """What independent probes read from the latent, label by label."""
    rows = [
        [label, signs[label], *(metrics.get(path.format(label)) for path in EVIDENCE.values())] for label in labels if f"probe/{label}/r2" in metrics
    ]
    return ["label", "in the latent", *EVIDENCE], rows


def log_record(wandb_run: Any, run: Run, metrics: Mapping[str, float], signs: Mapping[str, str], units: Mapping[str, str], with_model: bool) -> None:
    """Log tables, figures and artifacts of a finished run."""
    import wandb

    labels = list(signs)
    tables = {"downstream": downstream_rows(metrics, labels, units, signs), "probes": probe_rows(metrics, labels, signs)}
    media: dict[str, Any] = {f"tables/{name}": wandb.Table(columns=list[Any](columns), data=rows) for name, (columns, rows) in tables.items() if rows}
    media |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted((run.path / "figures").glob("*.png"))}
    wandb_run.log(media)
    facts = {"survey": run.manifest["survey"]["content_hash"], "run": wandb_run.id}
    _use(wandb_run, survey_artifact(run))
    wandb_run.log_artifact(_artifact(f"record-{wandb_run.id}", "record", run.path, RECORD_FILES, facts))
    if with_model:
        wandb_run.log_artifact(_artifact(f"model-{wandb_run.id}", "model", run.path, MODEL_FILES, facts))


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
            artifact.add_file(str(folder / file), name=file, policy="immutable", skip_cache=True)  # no second copy on disk
    return artifact
