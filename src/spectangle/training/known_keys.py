"""The keys of a config that something reads: arguments of what it builds, and those of groups that build nothing."""

from omegaconf import DictConfig

from spectangle.configs.constructors import arguments, check_arguments
from spectangle.errors import refuse_unknown
from spectangle.model.adversary import Adversary
from spectangle.model.optimizers import OPTIONS
from spectangle.model.scaling import LabelBins

__all__ = ["BY_MODEL", "check_keys"]

# what the model tells its adversary and its bins
BY_MODEL = {"labels", "latent", "lambdas", "bins", "classes", "attributes", "incomplete"}


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing takes, which Hydra lets a plus add anywhere.

    Raises:
        SpectangleError: Names one, and the nearest that there is; or what is to be built is not there.
    """
    taken: dict[str, set[str]] = {
        "labels": {"attributes", "require", "weight"},
        "optimizer": set(OPTIONS),
        "adversary": (arguments(Adversary) or set()) - BY_MODEL,
        "bins": (arguments(LabelBins) or set()) - BY_MODEL | {"entangled_count"},  # that is the adversary's
        "logger": set(),  # csv; the others build something
        "experiment": set(),  # changes other groups
    }
    for group, known in taken.items():
        node = cfg.get(group)
        if isinstance(node, DictConfig) and "_target_" not in node:
            refuse_unknown(group, node, known)
    check_arguments(cfg)
