"""What a sweep will do: its space, objectives and options, fixed before the first run starts."""

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from spectangle.configs.nested import flat
from spectangle.errors import SpectangleError, root_cause
from spectangle.files import redacted
from spectangle.packs.pack_key import pack_key
from spectangle.runs.entry import CHANGES_NOTHING, named
from spectangle.sweeps.space import Space, parse_space, written
from spectangle.training.seeds import check_seed

__all__ = ["Options", "Plan", "make_plan"]

# final numbers of a run, by which nothing may be chosen; what is measured for choices begins with val/ or train/
ON_TEST_STARS = (
    "test/",
    "probe/",
    "disentanglement/",
    "retention/",
    "reference/",
    "floor/",
    "floor_decoder/",
    "excess",
    "largest_excess",
)


@dataclass
class Options:
    """How a sweep is run; each is a key of ``conf/hydra/sweeper/spectangle.yaml``, explained there."""

    n_trials: int = 20
    trial_seeds: Sequence[int] | None = None
    workers: int = 1
    pack: int | str = 1
    threads: int | None = None
    retries: int = 1
    max_failure_rate: float = 0.5
    trial_timeout_min: float | None = None
    storage: str | None = None
    study_name: str | None = None
    allow_change: bool = False
    rerun: Sequence[str] = ()
    dry_run: bool = False
    batch: int = 8
    heartbeat_s: float = 10
    start_method: str | None = None
    preload: Sequence[str] = ()
    custom_search_space: str | None = None

    def __post_init__(self):
        if self.pack != "auto" and (not isinstance(self.pack, int) or isinstance(self.pack, bool) or self.pack < 1):
            raise SpectangleError(
                f"sweep.pack is {_word(self.pack)}; it must be a whole number of at least 1, or auto."
            )
        for name, low in (("n_trials", 1), ("workers", 1), ("retries", 0), ("batch", 1), ("threads", 1)):
            value = getattr(self, name)
            if not (
                isinstance(value, int)
                and not isinstance(value, bool)
                and value >= low
                or name == "threads"
                and value is None
            ):
                raise SpectangleError(f"sweep.{name} is {_word(value)}; it must be a whole number of at least {low}.")
        for name, low, high in (
            ("heartbeat_s", 0.1, math.inf),
            ("max_failure_rate", 0, 1),
            ("trial_timeout_min", 0, math.inf),
        ):
            value = getattr(self, name)
            if not (
                isinstance(value, (int, float))
                and low <= value <= high
                or name == "trial_timeout_min"
                and value is None
            ):
                raise SpectangleError(
                    f"sweep.{name} is {_word(value)}; it must be a number between {low:g} and {high:g}."
                )
        for name in ("allow_change", "dry_run"):
            if not isinstance(getattr(self, name), bool):
                raise SpectangleError(f"sweep.{name} is {_word(getattr(self, name))}; it must be true or false.")
        if self.trial_seeds is not None:
            self.trial_seeds = _list("trial_seeds", self.trial_seeds)
            for seed in self.trial_seeds:
                check_seed("trial_seeds", seed)
            if len(set(self.trial_seeds)) < max(1, len(self.trial_seeds)):
                raise SpectangleError(f"trial_seeds is {list(self.trial_seeds)}; give different seeds, or null.")
        self.rerun = [str(name) for name in _list("sweep.rerun", self.rerun)]


@dataclass
class Plan:
    """A sweep, ready to run.

    Arguments:
        folder: Sweep folder; one sub-folder per configuration.
        space: What varies.
        config: The config that all runs share.
        objectives: Metric paths, one for each direction.
        directions: ``minimize`` or ``maximize``.
        sampler, pruner: Nodes of Optuna's objects.
        options: See :class:`Options`.
    """

    folder: Path
    space: Space
    config: DictConfig
    objectives: list[str]
    directions: list[str]
    sampler: Any
    pruner: Any
    options: Options

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of the config that the runs share, to tell results of an earlier config."""
        shared = {key: value for key, value in self.fingerprint().items() if key in ("config", "fixed")}
        return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @functools.cached_property
    def grid(self) -> list[dict[str, Any]] | None:
        """Every point of a grid, those that may share a pack one after the other; None for any other sampler."""
        if not is_grid(self.sampler):
            return None
        points = list(self.space.points(self.config))
        keys = [pack_key(point) for point in points] if self.options.pack != 1 else []
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        order = sorted(range(len(points)), key=lambda place: first[keys[place]] if keys else place)
        return [points[place] for place in order]

    def per_pack(self, runs: int) -> int:
        """Configurations of a pack of so many runs: with all their seeds, at least one."""
        return max(1, runs // len(self.options.trial_seeds or (None,)))

    @property
    def packs(self) -> list[int]:
        """Number of the pack of each point of a grid, from 1, if one worker takes them all; none where each is one, or
        where only the memory of the machine will tell.
        """
        if not isinstance(self.options.pack, int) or self.options.pack == 1:
            return []
        room = self.per_pack(self.options.pack)
        found: list[int] = []
        held: list[Any] = []
        for key in map(pack_key, self.grid or []):
            full = bool(held) and (held[0] != key or len(held) == room)
            found.append(found[-1] + full if found else 1)
            held = [key] if full else [*held, key]
        return found

    @property
    def n_trials(self) -> int:
        """Configurations in total: all of a grid, never more than there are."""
        if self.grid is not None:
            return len(self.grid)
        return min(self.options.n_trials, self.space.size or self.options.n_trials)

    @property
    def n_runs(self) -> int:
        """Runs in total: each configuration once for each seed."""
        return self.n_trials * len(self.options.trial_seeds or (None,))

    @property
    def accelerator(self) -> str:
        """Lightning's, which decides whether a pack takes a GPU."""
        return str((self.config.get("trainer") or {}).get("accelerator", "auto"))

    @property
    def prunes(self) -> bool:
        return bool(self.pruner) and not self.pruner["_target_"].endswith("NopPruner")

    def make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler whose seed depends on the trial: no two workers and no restart propose the same points."""
        if self.grid is not None:
            return optuna.samplers.RandomSampler(seed=0)
        node = {key: value for key, value in self.sampler.items() if value is not None and key != "_partial_"}
        if "seed" in node and "QMC" not in node["_target_"]:  # a quasi-random sequence needs the one seed
            node["seed"] = int.from_bytes(hashlib.sha256(f"{node['seed']}/{number}".encode()).digest()[:4], "big")
        return instantiate(node, _execution_whitelist_=("optuna.*", "hydra_plugins.hydra_optuna_sweeper.*"))

    def rehearse(self) -> None:
        """Let sampler and pruner propose something in a study of their own, before anything is started.

        Raises:
            SpectangleError: They cannot do that here: a package is missing, or the space or the objectives are not for
                them.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: Any = self.directions  # optuna's annotation wants literals
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(directions=directions, sampler=sampler, pruner=self.make_pruner())
        try:
            for number in range(2):  # many samplers draw their first points at random
                trial = study.ask()
                self.space.define(self.config, trial)
                study.tell(trial, [0.0] * len(self.directions))
                study.sampler = self.make_sampler(number)
        except optuna.TrialPruned:  # custom_search_space leaves this point out
            pass
        except SpectangleError:
            raise
        except Exception as error:
            reason = str(root_cause(error)).strip().splitlines()[0].rstrip(".")
            name = str((self.sampler or {}).get("_target_", "sampler")).rpartition(".")[2]
            raise SpectangleError(
                f"hydra/sweeper/sampler cannot be used here: {name}: {reason}. Take another one, for instance tpe."
            ) from error

    def make_pruner(self) -> optuna.pruners.BasePruner:
        if not self.prunes:
            return optuna.pruners.NopPruner()
        return instantiate(dict(self.pruner), _execution_whitelist_=("optuna.pruners.*",))

    def record(self) -> dict[str, Any]:
        """What a reader of the folder needs to know without the study."""
        storage = self.options.storage and redacted(self.options.storage)
        facts = {"storage": storage, "objectives": self.objectives, "directions": self.directions}
        seeds = None if self.options.trial_seeds is None else list(self.options.trial_seeds)
        return facts | {"seeds": seeds, "n_trials": self.n_trials, "swept": list(self.space.swept)}

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same when a sweep goes on: the space, the objectives and every key that all runs share."""
        config = OmegaConf.to_container(self.config, resolve=False)
        shared = {
            key: value
            for key, value in sorted(flat(config).items())
            if key not in ("hydra", "objective") and not named(key, CHANGES_NOTHING)
        }
        seeds = None if self.options.trial_seeds is None else list(self.options.trial_seeds)
        return self.space.describe() | {
            "objectives": dict(zip(self.objectives, self.directions, strict=True)),
            "seeds": seeds,
            "config": shared,
        }


def make_plan(
    config: DictConfig,
    arguments: Sequence[str],
    sampler: Any,
    pruner: Any,
    direction: Any,
    params: Any,
    options: Mapping[str, Any],
) -> Plan:
    """Read the sweep out of Hydra's config and the overrides of the command line, and refuse what cannot work.

    Raises:
        SpectangleError: Nothing is swept, objectives and directions disagree, or an option is out of range.
    """
    sampler, pruner, params, options = (_plain(node) for node in (sampler, pruner, params or {}, dict(options)))
    if unknown := set(options) - {field.name for field in fields(Options)}:
        raise SpectangleError(
            f"hydra.sweeper has no {', '.join(sorted(unknown))}; its keys are in conf/hydra/sweeper/spectangle.yaml."
        )
    chosen = Options(**options)
    extend = get_method(chosen.custom_search_space) if chosen.custom_search_space else None
    space = parse_space(
        [*(f"{key}={written(value)}" for key, value in params.items()), *arguments], extend, is_grid(sampler)
    )
    if not space.swept and extend is None and not (is_grid(sampler) and chosen.trial_seeds):
        raise SpectangleError(
            "This sweep varies nothing; give for instance model.latent=5,10,25 or hydra.sweeper.params, or, to repeat "
            "one configuration, hydra/sweeper/sampler=grid trial_seeds=[0,1,2]."
        )
    seeds = chosen.trial_seeds or []
    if isinstance(chosen.pack, int) and 1 < chosen.pack < len(seeds):
        raise SpectangleError(
            f"sweep.pack is {chosen.pack}, and the {len(seeds)} runs of a configuration, one for each of trial_seeds, "
            f"train together: give sweep.pack={len(seeds)} or more, or fewer seeds."
        )
    shared = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])  # pyright: ignore
    objectives = _objectives(shared.get("objective"))
    directions = _directions(direction, objectives)
    plan = Plan(Path(config.hydra.sweep.dir).resolve(), space, shared, objectives, directions, sampler, pruner, chosen)
    if plan.prunes and len(objectives) > 1:
        raise SpectangleError(
            f"Pruning needs one objective, this sweep has {len(objectives)}; use hydra/sweeper/pruner=none."
        )
    if not math.isfinite(plan.n_trials) or plan.n_trials == 0:
        raise SpectangleError("The search space has no points; custom_search_space leaves all of them out.")
    return plan


def is_grid(sampler: Mapping[str, Any] | None) -> bool:
    return bool(sampler) and str(sampler["_target_"]).endswith("GridSampler")  # pyright: ignore


def _objectives(objective: Any) -> list[str]:
    names = list(objective) if isinstance(objective, ListConfig) else [objective]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise SpectangleError(
            f"objective is {_word(objective)}; it must be a metric path, for instance val/reconstruction, or a "
            "list of them."
        )
    for name in names:
        if wrong := [part.strip() for part in name.split(" + ") if part.strip().startswith(ON_TEST_STARS)]:
            raise SpectangleError(
                f"objective is {name}, and {wrong[0]} is measured on test stars: they are read once, for the "
                "final table. Choose by "
                f"validation metrics, for instance val/{wrong[0].removeprefix('test/')} (callbacks.probes and "
                "callbacks.regressor measure it with "
                "every_n_epochs=${trainer.max_epochs})."
            )
    return names


def _directions(direction: Any, objectives: Sequence[str]) -> list[str]:
    given = (
        [direction]
        if isinstance(direction, str) or not isinstance(direction, Sequence | ListConfig)
        else list(direction)
    )
    names = [getattr(item, "name", str(item)) for item in given]
    if wrong := [name for name in names if name not in ("minimize", "maximize")]:
        raise SpectangleError(
            f"hydra.sweeper.direction is {', '.join(wrong)}; it must be minimize or maximize, or a list of them."
        )
    if len(names) != len(objectives):
        raise SpectangleError(
            f"There are {len(objectives)} objectives ({', '.join(map(str, objectives))}) and {len(names)} directions "
            f"({', '.join(names)}); give hydra.sweeper.direction one for each objective."
        )
    return names


def _list(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise SpectangleError(f"{name} is {_word(value)}; it must be a list, for instance {name}=[{_word(value)}].")
    return list(value)


def _word(value: Any) -> str:
    return "null" if value is None else str(value)


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
