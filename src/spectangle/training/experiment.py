"""One experiment, from a config to a finished run folder."""

import logging
import resource
import shlex
import signal
import sys
import time
import warnings

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from spectangle.configs.label_lambdas import fate
from spectangle.console import render
from spectangle.data.module import SpectraDataModule
from spectangle.devices import use_accelerator
from spectangle.errors import SpectangleError
from spectangle.evaluation.results_table import result_table
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.build import build_model
from spectangle.packs.line import in_pack, joins_pack
from spectangle.packs.shared_stars import model_for, stars_of
from spectangle.runs.entry import entered, refuse_change
from spectangle.runs.folder import Run
from spectangle.runs.sweep_link import link
from spectangle.signals import Stopped, stopping_on
from spectangle.threads import use_threads
from spectangle.tracking.session import Session
from spectangle.training.checks import check_config
from spectangle.training.measured import MeasuredNames, objectives
from spectangle.training.progress import History
from spectangle.training.pruning import sweep_callbacks
from spectangle.training.resumption import Continuity, measure_last_epoch, resumable, threads_before

__all__ = ["objectives", "train"]

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, float]:
    """Train the model of a config, run its callbacks, and return the final numbers by metric path.

    A run folder that holds a checkpoint is resumed, one that is finished is only read.

    Raises:
        SpectangleError: The folder holds another experiment, or another process trains in it.
        Stopped: A signal came; the run can be resumed.
    """
    run = Run(HydraConfig.get().runtime.output_dir, must_exist=False)
    if run.finished:
        refuse_change(run, cfg)
        log.info("%s is finished already.", run.path)
        return run.metrics
    try:
        with stopping_on(signal.SIGINT), entered(run, cfg), Session(cfg) as session:
            return train_from(cfg, run, session)
    except (Stopped, KeyboardInterrupt):
        log.info("stopped; go on with: spectangle train %s", shlex.quote(f"resume={run.path}"))
        raise


def train_from(cfg: DictConfig, run: Run, session: Session) -> dict[str, float]:
    """Train in a run folder that is not finished yet, seen by the session's loggers."""
    start = time.perf_counter()
    quiet_lightning()
    use_threads()  # before the first sum: threads that begin earlier go on with numbers near zero
    packed = joins_pack(cfg)  # then the pack has the GPU
    devices = OmegaConf.select(cfg, "trainer.devices")
    gpu = devices[0] if OmegaConf.is_list(devices) and len(devices) == 1 and isinstance(devices[0], int) else None
    use_accelerator("cpu" if packed else OmegaConf.select(cfg, "trainer.accelerator", default="auto"), gpu)
    check_config(cfg)  # it tries the regressors; the loggers are open: they see it fail
    if packed:
        cfg = OmegaConf.merge(cfg, {"trainer": {"accelerator": "cpu", "devices": 1}})  # pyright: ignore
    use_threads(cfg.threads)
    torch.manual_seed(cfg.seed)
    data = stars_of(cfg)
    data.setup()
    model = build_model(cfg, data, like=model_for(data))
    survey = {"path": str(data.path), "content_hash": data.content_hash, "origin": data.origin, "units": data.units}
    facts = ({"pack": link.pack_name} if packed else {}) | ({"gpu_packs": True} if link.gpu_packs else {})
    threads, before = torch.get_num_threads(), threads_before(run)
    run.write_manifest(seed=cfg.seed, survey=survey, threads=threads, **facts)
    announce(run, data, model)
    if (resumed := resumable(run)) and before not in (None, threads):
        log.warning(
            "warning: this run was trained with threads=%d and goes on with threads=%d: its numbers differ in "
            "rounding from those of an uninterrupted one (threads=%d keeps them the same).",
            before,
            threads,
            before,
        )
    measure_last_epoch(cfg, run, resumed, model, data)
    loggers = [History(str(run.path)), *session.loggers]
    try:
        callbacks = [hydra.utils.instantiate(node) for node in cfg.callbacks.values() if node] + sweep_callbacks(cfg)
        watched = [Continuity(run, resumed), *callbacks, MeasuredNames(cfg)]
        trainer = hydra.utils.instantiate(cfg.trainer, callbacks=watched, logger=loggers)
        with in_pack(model, cfg):
            trainer.fit(model, datamodule=data, ckpt_path=resumed and resumed.path, weights_only=True)
    except MisconfigurationException as error:  # what Lightning's callbacks refuse, and what it notices while it trains
        raise SpectangleError(f"Lightning cannot train with this config: {' '.join(str(error).split())}") from error
    metrics = collect(run, callbacks) | costs(model) | {"time/total": time.perf_counter() - start}
    objectives(cfg, metrics)  # a run that lacks its objective is not finished
    run.write_metrics(metrics)
    if any(key.startswith("test/latent/") for key in metrics):
        log.info("%s", render(result_table(metrics, data.labels, data.units, signs(model))))
    else:
        log.info("No labels were read: callbacks.regressor=null. So this run cannot predict any.")
    log.info("The run is in %s", run.path)
    session.conclude(metrics, signs(model), data)
    return metrics


def announce(run: Run, data: SpectraDataModule, model: DisentanglingAutoencoder) -> None:
    """Say what is about to be trained, with the sign of each label."""
    log.info("run     %s", run.path)
    log.info("survey  %s", data.path)
    log.info("stars   %d training, %d validation, %d test", len(data.train), len(data.validation), len(data.test))
    for note in data.notes:
        log.info("        %s", note)
    words = [
        f"{name} {sign} ({value:+g})"
        for (name, sign), value in zip(signs(model).items(), model.adversary.lambdas, strict=True)
    ]
    log.info("labels  %s", ", ".join(words))
    if any(model.adversary.lambdas) and model.adversary.lambda_unit == "scaled":
        log.info("        lambda 1 is %.1e in the paper's unit, nats against squared flux", model.flux_scaler.unit**2)


def signs(model: DisentanglingAutoencoder) -> dict[str, str]:
    """What lambda does to each label."""
    return dict(zip(model.targets, map(fate, model.adversary.lambdas), strict=True))


def quiet_lightning() -> None:
    """Keep Lightning's banners, and hints of the libraries that do not apply, out of the log."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    hints = (
        ".*srun.*",
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*callbacks used to create the checkpoint.*",
        "Stochastic Optimizer: Maximum iterations",  # the paper's network ends there if it has not stopped before
        "A column-vector y was passed",  # a survey with one label; scikit-learn's network does the right thing with it
    )
    for hint in hints:
        warnings.filterwarnings("ignore", hint)


def collect(run: Run, callbacks: list) -> dict[str, float]:
    """Numbers of the validation of the best epoch, or where no checkpoint is kept, of the last one; and what the
    callbacks found after training.
    """
    rows = {int(row["epoch"]): row for row in run.history}
    epoch = (
        int(torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)["epoch"])
        if run.best_checkpoint.is_file()
        else max(rows, default=-1)
    )
    metrics = {key: value for key, value in rows.get(epoch, {}).items() if key.startswith(("train/", "val/"))}
    for callback in callbacks:
        metrics |= getattr(callback, "metrics", {})
    return metrics | {"epoch/best": epoch}


def costs(model: DisentanglingAutoencoder) -> dict[str, float]:
    """Classes and parameters of all discriminators, and the most memory that the process has held, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "adversary/classes": float(sum(model.adversary.n_classes)),
        "adversary/parameters": float(sum(p.numel() for p in model.adversary.parameters())),
        "memory/peak_gb": peak / 1e9,
    }
