"""The guard of conf/: a yaml key is a constructor argument, every group composes, every file says only what it must."""

import inspect
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, OmegaConf

from spectangle.configs.arguments import label_key
from spectangle.configs.label_lambdas import lambda_by_label
from spectangle.configs.resolvers import register_resolvers
from spectangle.errors import SpectangleError
from spectangle.model.adversary import Adversary
from spectangle.model.scaling import LabelBins
from spectangle.training.known_keys import BY_MODEL, check_keys

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
PAIRS = ("first_pair", "second_pair")
GIVEN_BY_TRAIN = {"n_pixels", "labels", "wavelength", "label_units", "path", "callbacks", "logger"}


def configs():
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")):
            yield pytest.param(f"{group}={path.stem}", id=f"{group}={path.stem}")


def composed(*overrides):
    register_resolvers()
    return read(*overrides)


@cache
def read(*overrides):
    """A config that many tests only read: composing it takes a tenth of a second."""
    with initialize_config_dir(str(CONF)):
        cfg = compose("config", overrides=list(overrides))
    OmegaConf.set_readonly(cfg, True)
    return cfg


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


def test_every_argument_of_the_adversary_has_a_key():
    keys = set(inspect.signature(Adversary).parameters) - BY_MODEL
    missing = keys - set(composed("adversary=default").adversary)
    assert not missing, "write a line with a comment for each of these into conf/adversary/default.yaml"
    with pytest.raises(SpectangleError, match="There is no key adversary.incomplete: nothing would read it"):
        check_keys(composed("+adversary.incomplete=[teff]"))


def test_the_guard_sees_a_wrong_key():
    cfg = composed("+callbacks.probes.colour=red")
    node = dict(targets(cfg))["callbacks.probes"]
    assert {str(key) for key in node if not str(key).startswith("_")} - parameters(
        "spectangle.evaluation.probes.Probes"
    ) == {"colour"}


def test_pairs_follow_the_table_of_the_paper():
    labels = ("teff", "logg", "m_h", "alpha_fe")
    first, second = (lambda_by_label(composed(f"lambdas={name}").lambdas, labels) for name in PAIRS)
    assert all(first[name] < 0 < second[name] for name in ("teff", "logg"))
    assert all(second[name] < 0 < first[name] for name in ("m_h", "alpha_fe"))
    for pair, other in zip(PAIRS, ("entangle_physical", "entangle_chemical"), strict=True):
        assert composed(f"lambdas={pair}").lambdas == composed(f"lambdas={other}").lambdas


def test_presets_mean_the_labels_of_any_survey():
    """Where the metallicity has another name, where there is no teff, where there is one label."""
    first, second = (composed(f"lambdas={name}").lambdas for name in PAIRS)
    labels = ("teff", "logg", "fe_h", "vsini")
    assert lambda_by_label(first, labels) == {"teff": -1, "logg": -1, "fe_h": 1, "vsini": 1}
    assert lambda_by_label(second, labels) == {"teff": 1, "logg": 1, "fe_h": -2.5, "vsini": -2.5}
    for name, value in (("entangle_all", -1), ("disentangle_all", 1), ("none", 0)):
        assert lambda_by_label(composed(f"lambdas={name}").lambdas, ["age"]) == {"age": value}
    with pytest.raises(SpectangleError, match="names teff, logg, but .* are age, c_fe. .*lambdas=none"):
        lambda_by_label(first, ("age", "c_fe"))
    with pytest.raises(SpectangleError, match="a label 'others', the word that stands"):
        lambda_by_label({}, ("others",))


def test_a_label_has_its_own_lambda_without_a_plus():
    words = ["lambdas=disentangle_all", label_key("lambdas.vsini=-2"), label_key("lambdas.age=null")]
    found = lambda_by_label(composed(*words).lambdas, ("vsini", "age", "c_fe"))
    assert found == {"vsini": -2, "age": 1, "c_fe": 1}


def test_files_are_short():
    """Choices only; top-level files of entry points may be longer."""
    long = [
        path for group in GROUPS for path in (CONF / group).glob("*.yaml") if len(path.read_text().splitlines()) > 50
    ]
    assert not long


@pytest.mark.parametrize(
    ("overrides", "rate", "conditioning"),
    [
        (["lambdas=first_pair"], 1.0, "observed"),
        (["lambdas=none"], 0.0, "none"),
        (["lambdas=none", label_key("lambdas.vsini=-1")], 1.0, "observed"),
        (["lambdas=none", "model.latent_rate=6"], 6, "none"),
        (["lambdas=none", "model.conditioning=observed"], 0.0, "observed"),
        (["lambdas=first_pair", "model.latent_rate=0"], 0, "observed"),
        (["lambdas=none", "experiment=paper_literal"], 0, "observed"),
    ],
)
def test_the_pure_latent_is_that_of_a_regular_autoencoder_unless_asked(overrides, rate, conditioning):
    """With all lambda 0, noise and a decoder that is told the labels would only lose them."""
    model = composed(*overrides).model
    assert (model.latent_rate, model.conditioning) == (rate, conditioning)


@pytest.mark.parametrize(
    "override", [*configs(), *(f"logger={path.stem}" for path in (CONF / "logger").glob("*.yaml"))]
)
def test_every_key_is_known_to_what_refuses_others(override):
    check_keys(composed(override))
