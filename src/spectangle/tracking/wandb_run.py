"""One W&B run for each job: curves by epoch, final tables, figures, artifacts, and the truth about how it ended."""

import functools
import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from spectangle.runs.folder import Run
from spectangle.tracking.connection import choose_mode, server
from spectangle.tracking.exported import exported
from spectangle.tracking.identity import identify, public_config, tags
from spectangle.tracking.job_ending import ending
from spectangle.tracking.offline_runs import note_synced
from spectangle.tracking.record import log_artifacts, log_results, results
from spectangle.tracking.wandb_files import segments, wait_for_end

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule

__all__ = ["WandbRun", "settings", "summary_of"]

log = logging.getLogger(__name__)


def bystander(method: Callable) -> Callable:
    """W&B watches: what goes wrong in it is said once, and the training goes on without it."""

    @functools.wraps(method)
    def guarded(self: "WandbRun", *args: Any, **kwargs: Any) -> None:
        if self._run is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            if not self._lost:
                log.warning(
                    "W&B stopped listening (%s: %s); the run goes on, everything is in its folder.",
                    type(error).__name__,
                    error,
                )
            self._lost = True

    return guarded


class WandbRun(Logger):
    """Send a run to W&B, or write it to the run folder for ``spectangle sync``.

    Arguments:
        folder: Run folder.
        project, entity: Where the run appears; by default your own account.
        mode: ``online``, ``offline``, or ``auto``: online where the server answers and there is a key.
        model: Whether the exported model, the best checkpoint and the regressor become a model artifact.
        onnx: Whether the exported model has a model.onnx.
        timeout_s: Seconds to wait for W&B at the start of a run; at its end four times as many.

    Raises:
        SpectangleError: The mode is unknown, or ``online`` has no key.
    """

    def __init__(
        self,
        folder: str,
        project: str = "spectangle",
        entity: str | None = None,
        mode: str = "auto",
        model: bool = True,
        onnx: bool = False,
        timeout_s: float = 30,
    ):
        super().__init__()
        self.folder, self.project, self.entity, self.mode = Path(folder), project, entity, mode
        self.model, self.onnx, self.timeout_s = model, onnx, timeout_s
        self._run: Any = None
        self._facts: dict[str, Any] = {}
        self._lost = False
        self._row: dict[str, float] = {}
        self._seen: set[str] = set()

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return "" if self._run is None else self._run.id

    @rank_zero_only
    def begin(self, cfg: DictConfig) -> None:
        """Start the W&B run of a job, or go on with it if the run folder has one."""
        hydra = HydraConfig.get()
        if multiprocessing.parent_process() is not None:
            os.environ.pop("WANDB_SERVICE", None)  # a killed child would leave its id in use in its parent's service
        mode, why = choose_mode(self.mode)
        sweep = hydra.sweep.dir if hydra.mode == RunMode.MULTIRUN else None
        who = identify(
            Run(self.folder, must_exist=False), sweep, os.environ.get("WANDB_RUN_ID") if sweep is None else None
        )
        choices = dict(hydra.runtime.choices)
        self._facts = {
            "id": who.id,
            "name": who.name,
            "group": who.group or None,
            "tags": tags(cfg, choices),
            "config": public_config(cfg, choices),
        }
        self._run = self._start(mode, resumed=who.started > 1)
        if self._run is None and mode == "online":
            why = "W&B is offline: its server did not accept the run"
            self._run = self._start("offline", resumed=False)
        if self._run is None:
            return
        if self._run.offline:
            log.info("%s; send it later: spectangle sync run=%s", why or "W&B is offline", self.folder)
        else:
            log.info("W&B     %s", self._run.url)
        self._catch_up()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is there since the start."""

    @rank_zero_only
    @bystander
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Collect the metrics of an epoch; those without an epoch are results and go to the summary."""
        numbers = {key: float(value) for key, value in metrics.items()}
        if "epoch" not in numbers:
            self._run.summary.update(numbers)
            return
        if self._row and numbers["epoch"] != self._row["epoch"]:
            self._flush()
        self._row |= numbers

    @bystander
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Send the epoch: a run that is killed goes on from here."""
        self._flush()

    @rank_zero_only
    @bystander
    def conclude(self, metrics: Mapping[str, float], signs: Mapping[str, str], data: "SpectraDataModule") -> None:
        """Send the final numbers, tables, figures and artifacts of a finished run."""
        self._flush()
        run = Run(self.folder)
        model = exported(run, data, self.onnx) if self.model else None
        try:
            self._log_record(run, metrics, signs, data.units, model)
        except Exception:
            if self._run.offline:
                raise
            self._go_offline()
            self._log_record(run, metrics, signs, data.units, model)

    def _log_record(
        self,
        run: Run,
        metrics: Mapping[str, float],
        signs: Mapping[str, str],
        units: Mapping[str, str],
        model: list[Path] | None,
    ) -> None:
        # it began with the word for all labels that are not named: which ones these are only the survey knew
        self._run.config.update({"lambdas": run.config["lambdas"]}, allow_val_change=True)
        self._run.summary.update(results(metrics))
        log_results(self._run, run, metrics, signs, units)
        log_artifacts(self._run, run, model)

    def _go_offline(self) -> None:
        """Write the whole run once more, offline: W&B asks its server before it takes tables and artifacts, and that is
        away.
        """
        log.info("W&B does not answer any more; send the run later: spectangle sync run=%s", self.folder)
        with suppress(Exception):
            self._run.finish(exit_code=0)
        self._run = self._start("offline", resumed=False)
        self._catch_up()

    @rank_zero_only
    @bystander
    def end(self, error: BaseException | None) -> None:
        """Close the W&B run as what the job was: finished, pruned, to be resumed, or failed with its error."""
        try:
            self._close(error)
        finally:
            self._run = None
            if (
                multiprocessing.parent_process() is not None
            ):  # a worker's child leaves without the exit hooks that would do it
                import wandb

                wandb.teardown()

    def _close(self, error: BaseException | None) -> None:
        self._flush()
        state = ending(error)
        facts = {
            "error": f"{type(error).__name__}: {error}"[:2000] if state == "failed" else "",
            "reason": str(error) if state == "pruned" else "",
        }
        self._run.summary.update(
            {"state": state} | facts
        )  # both always: a run that goes on loses what it said when it stopped
        online = not self._run.offline
        if state == "interrupted":
            self._run.mark_preempting()  # W&B shows it as preempted until it goes on
        self._run.finish(exit_code={"failed": 1, "interrupted": 255}.get(state, 0))
        wait_for_end(segments(self.folder)[-1])
        if online and not self._lost:
            note_synced(self.folder)

    def _start(self, mode: Any, resumed: bool) -> Any:
        import wandb

        try:
            return wandb.init(
                project=self.project,
                entity=self.entity,
                dir=str(self.folder),
                mode=mode,
                job_type="train",
                reinit="create_new",
                resume="allow" if resumed and mode == "online" else None,
                settings=settings(self.timeout_s),
                **self._facts,
            )
        except Exception as error:
            wandb.teardown()  # else its service takes the id for still in use
            log.warning(
                "W&B did not start (%s: %s); the run goes on.",
                type(error).__name__,
                str(error).splitlines()[0] if str(error) else "no reason given",
            )
            return None

    @bystander
    def _catch_up(self) -> None:
        """Send epochs that the run folder has and W&B has not: what a killed run had not yet handed over."""
        self._seen.clear()
        self._define("epoch")
        for row in Run(self.folder, must_exist=False).history:
            self._row = row
            self._flush()

    def _flush(self) -> None:
        row, self._row = self._row, {}
        if not row or row["epoch"] < self._run.step:  # an epoch that was sent before the run was interrupted
            return
        for name in row.keys() - self._seen:
            self._define(name)
        self._run.log(row, step=int(row["epoch"]), commit=True)

    def _define(self, name: str) -> None:
        self._seen.add(name)
        if name == "epoch":
            self._run.define_metric("epoch", hidden=True)
        else:
            self._run.define_metric(name, step_metric="epoch", summary=summary_of(name))


def settings(timeout_s: float) -> Any:
    """How W&B behaves in a job: quiet, never long in the way, with every second of data on the disk."""
    import wandb

    return wandb.Settings(
        base_url=server(),
        console="off",
        silent=True,
        init_timeout=timeout_s,
        finish_timeout=4 * timeout_s,
        finish_timeout_raises=True,
        disable_code=True,
        disable_job_creation=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=1,
        x_graphql_timeout_seconds=timeout_s,
    )


def summary_of(name: str) -> str:
    """What a summary keeps of a curve: the last value, and the best one in the direction that is better."""
    end = name.rpartition("/")[2]
    if "discriminator" in name:
        return "min,max,last"  # high is good for a label that is to be lost, low for one that is to be kept
    if end.startswith("r2") or "retention" in name:
        return "max,last"
    if end in ("reconstruction", "loss", "objective", "mae", "sigma", "sigma_mad", "sigma_abs") or "excess" in name:
        return "min,last"
    return "last"
