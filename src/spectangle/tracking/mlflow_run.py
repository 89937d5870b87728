"""MLflow through Lightning's own logger, which alone would begin a new run each time that a job is requeued."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from spectangle.files import write_beside

__all__ = ["MlflowRun"]


class MlflowRun(MLFlowLogger):
    """Log to one MLflow run for the whole life of a run folder, however often it is resumed.

    Arguments:
        folder: Run folder; its ``mlflow.json`` keeps the id of the MLflow run.
        experiment_name, run_name: What MLflow calls it.
        tracking_uri: Store or server.
    """

    def __init__(self, folder: str, experiment_name: str, run_name: str, tracking_uri: str):
        super().__init__(experiment_name=experiment_name, run_name=run_name, tracking_uri=tracking_uri)
        self._note = Path(folder) / "mlflow.json"
        self._sent: dict[str, int] = {}  # last step of each metric that an earlier start of the run has logged
        self._run_id = self._known()
        if self._run_id:
            self._mlflow_client.update_run(self._run_id, status="RUNNING")
            names = self._mlflow_client.get_run(self._run_id).data.metrics
            self._sent = {
                name: max(item.step for item in self._mlflow_client.get_metric_history(self._run_id, name))
                for name in names
            }

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log what MLflow does not have yet: it refuses to change a parameter, for instance to more epochs."""
        write_beside(self._note, json.dumps({"run_id": self.run_id}) + "\n")
        known = self._mlflow_client.get_run(str(self.run_id)).data.params
        super().log_hyperparams({name: value for name, value in params.items() if name not in known})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, without those of epochs that were done twice because the run was killed."""
        new = {name: value for name, value in metrics.items() if step is None or step > self._sent.get(name, -1)}
        if new:
            super().log_metrics(new, step)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the MLflow run; one that was pruned or interrupted is killed, in MLflow's words."""
        super().finalize({"pruned": "KILLED", "interrupted": "KILLED"}.get(status, status))

    def _known(self) -> str | None:
        """Id of the MLflow run that the folder has in this store."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._mlflow_client.get_run(json.loads(self._note.read_text())["run_id"])
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the store was removed, or is another one now
                return None
            raise
        return run.info.run_id if run.info.lifecycle_stage == "active" else None
