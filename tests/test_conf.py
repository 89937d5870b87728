"""The guard of conf/: a yaml key is a constructor argument, every group composes, every file says only what it must."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method
from omegaconf import DictConfig

from spectangle.configs.resolvers import register_resolvers
from spectangle.model.adversary import Adversary
from spectangle.model.scaling import LabelBins

CONF = Path(__file__).parents[1] / "conf"
GROUPS = [
    "data",
    "model",
    "lambdas",
    "bins",
    "adversary",
    "optimizer",
    "regressor",
    "probes",
    "trainer",
    "callbacks",
    "experiment",
]
GIVEN_BY_TRAIN = {"n_pixels", "labels", "wavelength", "label_units", "path", "callbacks", "logger"}


def configs():
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")):
            yield pytest.param(f"{group}={path.stem}", id=f"{group}={path.stem}")


def composed(*overrides):
    register_resolvers()
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides=list(overrides))


def targets(node, path=""):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                yield from targets(child, f"{path}.{key}" if path else str(key))


def parameters(target):
    try:
        built = get_class(target)
    except Exception:
        built = get_method(target)
    names = set()
    for cls in built.__mro__ if inspect.isclass(built) else [built]:
        function = cls.__init__ if inspect.isclass(cls) else cls
        names |= set(inspect.signature(function).parameters)
    return names


@pytest.mark.parametrize("override", configs())
def test_every_key_is_a_constructor_argument(override):
    cfg = composed(override)
    found = list(targets(cfg))
    assert len(found) >= 8
    for path, node in found:
        keys = {str(key) for key in node if not str(key).startswith("_")}
        unknown = keys - parameters(node._get_node("_target_")._value())
        assert not unknown, f"{override}: {path} has keys that {node._get_node('_target_')} does not take: {unknown}"


@pytest.mark.parametrize(
    "override", [one for one in configs() if one.id.startswith(("adversary=", "bins=", "experiment="))]
)
def test_plain_options_are_arguments_too(override):
    cfg = composed(override)
    taken = set(inspect.signature(Adversary.__init__).parameters)
    assert set(cfg.adversary) <= taken
    assert set(cfg.bins) - {"entangled_count"} <= set(inspect.signature(LabelBins.__init__).parameters)


def test_the_guard_sees_a_wrong_key():
    cfg = composed("+callbacks.probes.colour=red")
    node = dict(targets(cfg))["callbacks.probes"]
    assert {str(key) for key in node if not str(key).startswith("_")} - parameters(
        "spectangle.evaluation.probes.Probes"
    ) == {"colour"}


def test_pairs_follow_the_table_of_the_paper():
    first, second = composed("lambdas=first_pair").lambdas, composed("lambdas=second_pair").lambdas
    assert all(first[name] < 0 < second[name] for name in ("teff", "logg"))
    assert all(second[name] < 0 < first[name] for name in ("m_h", "alpha_fe"))
    assert (
        first == composed("lambdas=entangle_physical").lambdas
        and second == composed("lambdas=entangle_chemical").lambdas
    )


def test_files_are_short():
    """Choices only; top-level files of entry points may be longer."""
    long = [
        path for group in GROUPS for path in (CONF / group).glob("*.yaml") if len(path.read_text().splitlines()) > 50
    ]
    assert not long


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        (["lambdas=first_pair"], 1.0),
        (["lambdas=none"], 0.0),
        (["lambdas=none", "lambdas.teff=-1"], 1.0),
        (["lambdas=none", "model.latent_rate=6"], 6),
        (["lambdas=first_pair", "model.latent_rate=0"], 0),
    ],
)
def test_the_pure_latent_is_deterministic_unless_asked(overrides, rate):
    """With all lambda 0 the noise would lose whatever the decoder is told."""
    assert composed(*overrides).model.latent_rate == rate
