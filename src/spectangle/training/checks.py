"""Say no before anything is made: a config's values against what the constructors take, and against what can work."""

import inspect
import math
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectangle.configs.constructors import GIVEN, built_nodes
from spectangle.errors import SpectangleError, root_cause
from spectangle.evaluation.regressors import LabelGroups, check_kept
from spectangle.training.known_keys import check_keys
from spectangle.training.seeds import check_seed

__all__ = ["check_config", "fits"]

NUMBER, WHOLE = "a number", "a whole number"
# by key: kind, lowest, highest, whether null is allowed; what the annotations of a constructor cannot say
RANGES: dict[str, tuple[str, float, float, bool]] = {
    "threads": (WHOLE, 1, math.inf, True),
    "trainer.max_epochs": (WHOLE, 1, math.inf, False),
    "data.n_stars": (WHOLE, 20, math.inf, True),
    "data.folds": (WHOLE, 2, math.inf, True),
    "data.fold": (WHOLE, 0, math.inf, False),
    "data.batch_size": (WHOLE, 2, math.inf, False),
    "data.test_fraction": (NUMBER, 0, 1, False),
    "data.validation_fraction": (NUMBER, 0, 1, False),
    "data.max_masked_fraction": (NUMBER, 0, 1, False),
    "model.latent": (WHOLE, 1, math.inf, False),
    "model.pls_components": (WHOLE, 0, math.inf, False),
    "model.principal_components": (WHOLE, 0, math.inf, False),
    "model.dropout": (NUMBER, 0, 0.99, False),
    "model.latent_rate": (NUMBER, 0, math.inf, False),
    "model.latent_noise": (NUMBER, 0, math.inf, False),
    "model.input_noise": (NUMBER, 0, math.inf, False),
    "model.reconstruction_weight": (NUMBER, 0, math.inf, False),
    "adversary.discriminator_steps": (WHOLE, 1, math.inf, False),
    "adversary.lambda_scale": (NUMBER, 0, math.inf, False),
    "adversary.entangled_scale": (NUMBER, 0, math.inf, False),
    "adversary.warmup": (NUMBER, 0, 1, False),
    "adversary.plateau_steps": (WHOLE, 1, math.inf, False),
    "adversary.plateau_patience": (WHOLE, 0, math.inf, False),
    "adversary.ensemble": (WHOLE, 1, math.inf, False),
    "optimizer.lr": (NUMBER, 0, math.inf, False),
    "optimizer.sigma_lr": (NUMBER, 0, math.inf, False),
    "optimizer.discriminator_lr": (NUMBER, 0, math.inf, False),
    "optimizer.weight_decay": (NUMBER, 0, math.inf, False),
    "callbacks.regressor.draws": (WHOLE, 1, math.inf, False),
    "callbacks.regressor.every_n_epochs": (WHOLE, 0, math.inf, False),
    "callbacks.probes.every_n_epochs": (WHOLE, 0, math.inf, False),
    "callbacks.probes.small_below": (WHOLE, 0, math.inf, False),
    "callbacks.probes.bootstrap": (WHOLE, 1, math.inf, False),
    "callbacks.probes.max_stars": (WHOLE, 20, math.inf, True),
    "callbacks.figures.max_stars": (WHOLE, 1, math.inf, False),
    "callbacks.figures.tsne_stars": (WHOLE, 0, math.inf, False),
    "callbacks.checkpoint.save_top_k": (WHOLE, -1, math.inf, False),
    "regressor.epochs": (WHOLE, 1, math.inf, False),
    "regressor.members": (WHOLE, 1, math.inf, False),
    "regressor.max_iter": (WHOLE, 1, math.inf, False),
    "regressor.patience": (WHOLE, 1, math.inf, False),
    "regressor.alpha": (NUMBER, 0, math.inf, False),
    "regressor.batch_size": (WHOLE, 1, math.inf, False),
}
PASSES = ("max_iter", "epochs", "n_estimators")  # how long an estimator is fitted
WIDTHS = ("model.hidden", "adversary.hidden", "regressor.hidden")
SEEDS = ("seed", "data.seed", "data.split_seed", "data.survey_seed", "regressor.seed", "callbacks.probes.seed")
UNFIT = {  # options of Lightning's Trainer that this training has no use for, and why
    "gradient_clip_val": "the model has two optimisers of its own",
    "gradient_clip_algorithm": "the model has two optimisers of its own",
    "accumulate_grad_batches": "the model has two optimisers of its own",
    "fast_dev_run": "it leaves no checkpoint; take trainer.max_epochs=1 data.n_stars=500",
    "max_steps": "lambda and both rates are schedules over trainer.max_epochs",
    "min_steps": "lambda and both rates are schedules over trainer.max_epochs",
    "limit_val_batches": "every epoch is judged by all validation stars",
    "check_val_every_n_epoch": "every epoch is judged by all validation stars",
    "val_check_interval": "every epoch is judged once, when it ends",
}
PRECISIONS = ("32-true", "32", "64-true", "64", "bf16-mixed", "bf16", "16-mixed", "16", "None")
OF_VALIDATION = ("limit_val_batches", "check_val_every_n_epoch")  # 0 is none of it
ONE_IS_ALL = ("accumulate_grad_batches", "check_val_every_n_epoch")  # 1 is what they are anyway


def check_config(cfg: DictConfig) -> None:
    """Refuse what cannot work, before the survey is made.

    Raises:
        SpectangleError: A value has the wrong kind or is out of range; says which, and what it should be.
    """
    check_keys(cfg)
    for key in SEEDS:
        if OmegaConf.select(cfg, key.rpartition(".")[0] or key) is not None and _has(cfg, key):
            check_seed(key, _value(cfg, key))
    for key, (kind, low, high, optional) in RANGES.items():
        if _has(cfg, key) and not (optional and _value(cfg, key) is None):
            _check_number(key, _value(cfg, key), kind, low, high)
    for key in WIDTHS:
        if _has(cfg, key):
            _check_widths(key, _value(cfg, key))
    for key in ("betas", "discriminator_betas"):
        _check_betas(f"optimizer.{key}", _value(cfg, f"optimizer.{key}"))
    for key in ("bins.count", "bins.entangled_count"):
        counts = _value(cfg, key) if _has(cfg, key) else None
        for name, count in counts.items() if isinstance(counts, dict) else {"": counts}.items():
            if count is not None or key == "bins.count":
                _check_number(f"{key}.{name}".rstrip("."), count, WHOLE, 2, math.inf)
    _check_labels(cfg)
    _check_trainer(cfg)
    if OmegaConf.select(cfg, "callbacks.checkpoint.save_top_k") == 0:
        raise SpectangleError(
            "callbacks.checkpoint.save_top_k is 0; a run keeps the epoch that its numbers are taken from: give 1 or "
            "more, or -1 for all."
        )
    callbacks = {f"callbacks.{name}": node for name, node in _group(cfg, "callbacks").items()}
    for name, node in (callbacks | {"regressor": cfg.get("regressor")}).items():
        if node is not None and (not isinstance(node, DictConfig) or "_target_" not in node):
            raise SpectangleError(
                f"{name} is {_word(node)} in the config; it must say what it builds (_target_); callbacks may be null."
            )
    for path, node in built_nodes(cfg):
        if str(node._get_node("_target_")._value()).startswith("spectangle."):  # pyright: ignore
            _check_arguments(path, node)
    for size, suite in _group(cfg, "probes").items():
        if size == "gpu_packs_without":
            large = _group(cfg, "probes").get("large") or {}
            if large and not set(large) - set(suite or ()):
                raise SpectangleError(
                    "probes.gpu_packs_without names every probe of probes.large; at least one must be left."
                )
            continue
        if size == "coarse" and isinstance(suite, bool):
            continue
        if not isinstance(suite, DictConfig) and not (suite is None and size == "small"):
            raise SpectangleError(
                f"probes.{size} is {_word(suite)}; probes.large and probes.small hold regressors by name."
            )
        for name, node in (suite or {}).items():
            _check_estimator(f"probes.{size}.{name}", node)
    for path in ("regressor", "callbacks.regressor.paper", "callbacks.regressor.paper_on_gpu"):
        if (node := OmegaConf.select(cfg, path)) is not None:
            _check_estimator(path, node, kept=path == "regressor")  # from its file it predicts; others are only scored


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what an annotation asks for; an annotation that is not about plain values takes
    everything.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return (
            isinstance(value, (int, float) if hint is float else int)
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    if hint is str:
        return isinstance(value, str)
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return isinstance(value, Mapping) and (
            len(arguments) < 2 or all(fits(item, arguments[1]) for item in value.values())
        )
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return isinstance(value, (list, tuple)) and (not arguments or all(fits(item, arguments[0]) for item in value))
    return True


def _check_number(key: str, value: Any, kind: str, low: float, high: float) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (
        not (whole or (kind == NUMBER and isinstance(value, float) and math.isfinite(value)))
        or not low <= value <= high
    ):
        bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise SpectangleError(f"{key} is {_word(value)}; it must be {kind} {bounds}.")


def _check_widths(key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(
        isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in value
    ):
        raise SpectangleError(f"{key} is {_word(value)}; it must be a list of widths, for instance [64,32].")


def _check_betas(key: str, value: Any) -> None:
    if not (isinstance(value, list) and len(value) == 2 and all(fits(beta, float) and 0 <= beta < 1 for beta in value)):
        raise SpectangleError(
            f"{key} is {_word(value)}; it must be two numbers from 0 to below 1, for instance [0.9,0.999]."
        )


def _check_labels(cfg: DictConfig) -> None:
    lambdas, labels = _value(cfg, "lambdas"), _value(cfg, "data.labels")
    for name, value in (lambdas or {}).items():
        if value is not None and not fits(value, float):
            raise SpectangleError(
                f"lambdas.{name} is {_word(value)}; it must be a number: above 0 disentangles the label, below 0 "
                "entangles it."
            )
    if labels is not None and (
        not isinstance(labels, list) or not labels or not all(isinstance(name, str) for name in labels)
    ):
        raise SpectangleError(
            f"data.labels is {_word(labels)}; it must be a list of labels of the survey, for instance "
            "[teff,logg], or null for all."
        )
    if labels and len(set(labels)) < len(labels):
        raise SpectangleError(f"data.labels is {_word(labels)}; each label may be there once.")
    names = cfg.objective if OmegaConf.is_list(cfg.objective) else [cfg.objective]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise SpectangleError(
            f"objective is {_word(cfg.objective)}; it must be a metric path, for instance val/reconstruction, or "
            "a list of them."
        )


def _check_trainer(cfg: DictConfig) -> None:
    for key, why in UNFIT.items():
        value = cfg.trainer.get(key)
        off = value in (None, -1) or (value == 0 and key not in OF_VALIDATION)
        if not off and not (value == 1 and (isinstance(value, float) or key in ONE_IS_ALL)):
            raise SpectangleError(f"trainer.{key} is {_word(value)}, which does not work here: {why}.")
    _check_arguments("trainer", cfg.trainer)
    devices = cfg.trainer.get("devices")
    if devices not in (None, 1, "1") and not (OmegaConf.is_list(devices) and len(devices) == 1):
        raise SpectangleError(
            f"trainer.devices is {_word(devices)}; a run trains on one device: on several, each would see all stars. "
            "Give 1, or [2] for the third GPU; several GPUs share a sweep: sweep.workers=4."
        )
    precision = str(cfg.trainer.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise SpectangleError(
            f"trainer.precision is {precision}; a run trains in 32-true, 64-true, bf16-mixed or 16-mixed: weights and "
            "losses need at least single precision."
        )
    try:
        instantiate(cfg.trainer, logger=False)
    except Exception as error:
        raise SpectangleError(f"Lightning's Trainer refuses the keys of trainer: {_reason(error)}.") from error


def _check_arguments(path: str, node: DictConfig) -> None:
    """Values of a node against the annotations of what it builds."""
    target = node._get_node("_target_")._value()  # pyright: ignore
    built = get_object(target)
    function = built.__init__ if inspect.isclass(built) else built
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that exist for the type checker only
        hints = {}
    for key in node:
        if key in hints and key not in GIVEN and not fits(value := _value(node, str(key)), hints[str(key)]):
            raise SpectangleError(
                f"{path}.{key} is {_word(value)}; {target.rpartition('.')[2]} takes {_kind(hints[str(key)])}."
            )


def _check_estimator(path: str, node: Any, kept: bool = False) -> None:
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise SpectangleError(
            f"{path} is {_word(node)}; it must name a scikit-learn regressor: _target_ and its parameters."
        )
    try:
        estimator = instantiate(node)
        few = {key: 1 for key in estimator.get_params() if key.rpartition("__")[2] in PASSES}
        x = np.random.default_rng(0).normal(size=(40, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.set_params(**few).fit(x, x[:, 0])  # what its own checks let through fails here
        if kept:
            check_kept(LabelGroups(estimator).fit(x, x[:, :2]))
    except Exception as error:
        raise SpectangleError(f"{path} does not work: {_reason(error)}.") from error


def _group(cfg: DictConfig, name: str) -> dict[str, Any]:
    node = cfg.get(name)
    if node is not None and not isinstance(node, DictConfig):
        raise SpectangleError(f"{name} is {_word(node)}; it must be a mapping of names to what they build.")
    return {str(key): value for key, value in (node or {}).items()}


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and name in node


def _value(cfg: DictConfig, key: str) -> Any:
    try:
        found = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    except OmegaConfBaseException as error:
        raise SpectangleError(f"{key} refers to what is not there: {_reason(error)}.") from error


def _kind(hint: Any) -> str:
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_kind(one) for one in typing.get_args(hint))
    return words.get(hint) or f"a {str(hint).replace('collections.abc.', '').replace('typing.', '')}"


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _reason(error: BaseException) -> str:
    return " ".join(str(root_cause(error)).split()).rstrip(".")
