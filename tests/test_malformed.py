"""Malformed input, made from the config itself: each key as null, text, negative, not a number, a list: a sentence, or
a run.
"""

import copy
import logging
import math
import random
import warnings
from functools import cache
from pathlib import Path

import pytest
from commands import ROOT
from conftest import write_toy_survey
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from spectangle.configs.resolvers import register_resolvers
from spectangle.errors import SpectangleError
from spectangle.training.checks import check_config, fits
from spectangle.training.experiment import objectives, train

CONF = ROOT / "conf"
BAD = (None, "abc", -1, math.nan, [], [-1], {"a": "b"}, 2.5)
QUICK = [
    "data=survey",
    "model=tiny",
    "lambdas=first_pair",
    "probes=quick",
    "trainer.max_epochs=1",
    "regressor.epochs=2",
    "callbacks.figures=null",
    "callbacks.probes.bootstrap=2",
    "threads=1",
]
FREE = ("data.path", "logger", "objective", "callbacks.checkpoint.dirpath", "callbacks.last.dirpath", "experiment")
TRIED = 60


@cache
def quick() -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides=[*QUICK, "data.path=here"], return_hydra_config=True)


def composed(folder: Path, survey: Path) -> DictConfig:
    register_resolvers()
    OmegaConf.register_resolver("cache_folder", lambda: str(folder / "cache"), replace=True)
    OmegaConf.register_resolver("unique", lambda: "0", replace=True)
    cfg = copy.deepcopy(quick())
    with open_dict(cfg):
        cfg.data.path, cfg.hydra.runtime.output_dir = str(survey), str(folder / "run")
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def leaves(node: DictConfig, path: str = "") -> list[str]:
    """Keys of values; what refers to another key is tried there."""
    found = []
    for key in node:
        child, name = node._get_node(key), f"{path}.{key}" if path else str(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            found += leaves(child, name)
        elif not str(key).startswith("_") and not name.startswith(FREE) and not child._is_interpolation():  # pyright: ignore
            found.append(name)
    return found


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return write_toy_survey(tmp_path_factory.mktemp("malformed") / "toy.h5", n=120, n_pixels=12)


@pytest.mark.slow
def test_malformed_inputs_are_sentences(tmp_path, survey, caplog):
    caplog.set_level(logging.ERROR)
    keys = leaves(composed(tmp_path / "keys", survey))
    assert len(keys) > 60
    cases = [(key, value) for key in keys for value in BAD]
    chosen, wrong, refused = random.Random(0).sample(cases, TRIED), [], 0
    for number, (key, value) in enumerate(chosen):
        cfg = composed(tmp_path / str(number), survey)
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                objectives(cfg, train(cfg))
        except SpectangleError as error:
            refused += 1
            if "\n" in str(error) or len(str(error)) < 20:
                wrong.append(f"{key}={value}: {error}")
        except Exception as error:
            wrong.append(f"{key}={value}: {type(error).__name__}: {error}"[:300])
    assert not wrong, "\n".join(wrong)
    assert refused > 0.6 * TRIED


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("seed", -1, "seed is -1; a seed is a whole number"),
        ("seed", 2**32, "a seed is a whole number between 0 and"),
        ("seed", None, "seed is null"),
        ("data.split_seed", 1.5, "data.split_seed is 1.5"),
        ("objective", None, "objective is null; it must be a metric path"),
        ("lambdas.teff", "abc", "lambdas.teff is abc; it must be a number"),
        ("data.labels", ["teff", "teff"], "each label may be there once"),
        ("model.hidden", None, "model.hidden is null; it must be a list of widths"),
        ("optimizer.lr", math.nan, "optimizer.lr is nan; it must be a number of at least 0"),
        ("data.n_stars", "abc", "data.n_stars is abc; it must be a whole number"),
        ("trainer.gradient_clip_val", 0.5, "two optimisers of its own"),
        ("trainer.max_epochs", 0, "trainer.max_epochs is 0; it must be a whole number of at least 1"),
        ("trainer.max_epochs", -1, "trainer.max_epochs is -1"),
        ("trainer.fast_dev_run", True, "it leaves no checkpoint"),
        ("trainer.check_val_every_n_epoch", 2, "every epoch is judged by all validation stars"),
        ("trainer.limit_val_batches", 0, "every epoch is judged by all validation stars"),
        ("trainer.val_check_interval", 0.5, "every epoch is judged once, when it ends"),
        ("trainer.val_check_interval", 1, "every epoch is judged once, when it ends"),
        ("callbacks.checkpoint.save_top_k", 0, "a run keeps the epoch that its numbers are taken from"),
        ("trainer.precision", "17", "trainer.precision is 17"),
        ("model.latent", 0, "model.latent is 0"),
        ("probes.large.ridge.alpha", -1, "probes.large.ridge does not work"),
        ("probes.gpu_packs_without", ["ridge", "networks", "boosting", "neighbours"], "at least one must be left"),
        ("model.conditioning", 3, "takes a text"),
    ],
)
def test_what_cannot_work_is_refused_before_the_survey_is_read(tmp_path, key, value, sentence):
    cfg = composed(tmp_path, tmp_path / "not there.h5")
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    with pytest.raises(SpectangleError) as error:
        check_config(cfg)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("value", "hint", "answer"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        (math.nan, float, False),
        ("a", str, True),
        (None, int | None, True),
        ([1, 2], list[int], True),
        ([1, "a"], list[int], False),
        ({"a": 1.0}, dict[str, float], True),
        ("x", object, True),
    ],
)
def test_values_fit_annotations(value, hint, answer):
    assert fits(value, hint) == answer


@pytest.mark.parametrize(
    "group",
    ["data=synthetic", "model=paper", "model=wide", "experiment=paper_literal", "regressor=torch", "probes=default"],
)
def test_what_comes_with_the_project_is_accepted(group):
    register_resolvers()
    with initialize_config_dir(str(CONF)):
        cfg = compose("config", overrides=["+out=here", group], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = "run"
    HydraConfig.instance().set_config(cfg)
    check_config(cfg)
