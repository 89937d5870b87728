"""The sweeper that Hydra finds: it hands the search space and its options to :mod:`spectangle.sweeps`.

Hydra imports every plugin at each start, so nothing heavy is imported before a sweep begins.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

__all__ = ["SpectangleSweeper", "forget_storage"]


class SpectangleSweeper(Sweeper):
    """Sweep with any number of workers that share one Optuna study; see ``conf/hydra/sweeper/spectangle.yaml``.

    Arguments:
        sampler, pruner: Nodes of an Optuna sampler and pruner (or None).
        direction: ``minimize`` or ``maximize``, or one of them for each objective.
        params: Search space by override key, in hydra-optuna-sweeper's syntax.
        **options: Fields of :class:`spectangle.sweeps.plan.Options`.
    """

    def __init__(self, sampler: Any, pruner: Any, direction: Any, params: Any, **options: Any):
        self.sampler, self.pruner, self.direction, self.params, self.options = (
            sampler,
            pruner,
            direction,
            params,
            options,
        )

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        from spectangle.sweeps.controller import run_sweep
        from spectangle.sweeps.plan import make_plan
        from spectangle.sweeps.trial import App

        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        plan = make_plan(self.config, arguments, self.sampler, self.pruner, self.direction, self.params, self.options)
        forget_storage(self.config)
        run_sweep(plan, App(self.hydra_context, self.task_function, self.config))


def forget_storage(config: DictConfig) -> None:
    """Take the storage, which may hold a password, out of the config that the runs get and write down: only the plan
    needs it.
    """
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweeper.storage = None
        kept = [item for item in config.hydra.overrides.hydra if not item.startswith("hydra.sweeper.storage=")]
        config.hydra.overrides.hydra = [*kept, "hydra.sweeper.storage=null"]
