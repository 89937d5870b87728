"""The model of a config, for the stars that it is to be trained on."""

import copy
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from spectangle.model.autoencoder import DisentanglingAutoencoder

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule

__all__ = ["build_model"]

# what calibration does not ask for; lambdas count by who is kept and who is lost
UNREAD = ("lambdas", "optimizer", "reconstruction_weight", "input_noise", "latent_noise", "latent_rate")
UNREAD_BY_ADVERSARY = ("lambda_scale", "entangled_scale", "schedule", "warmup", "plateau_steps", "plateau_patience")


def build_model(
    cfg: DictConfig, data: "SpectraDataModule", like: DisentanglingAutoencoder | None = None
) -> DisentanglingAutoencoder:
    """Build the model for the sizes that the survey has, and fit its scalers and bins to the training stars.

    Arguments:
        cfg: The config.
        data: The stars.
        like: A model that was built for the same stars. What was fitted to them is copied, if it would come out the
            same.
    """
    model = hydra.utils.instantiate(
        cfg.model,
        n_pixels=data.n_pixels,
        labels=list(data.labels),
        wavelength=data.wavelength.tolist(),
        label_units=data.units,
        incomplete=data.incomplete,
        attributes={name: len(classes) for name, classes in data.classes.items()},
    )
    if like is not None and _comes_out_as(model, like):
        _copy_calibration(like, model)
    else:
        model.calibrate(data.train.flux, data.train.targets)
    data.classify_with(model.adversary.classify)
    return model


def _comes_out_as(model: DisentanglingAutoencoder, other: DisentanglingAutoencoder) -> bool:
    """Whether both become the same when they are fitted to the same stars; a joint discriminator is built only then."""
    return not model.adversary.joint and _asked_for(model) == _asked_for(other)


def _asked_for(model: DisentanglingAutoencoder) -> tuple[Any, ...]:
    """All that says what calibration computes, and some more."""
    adversary, options = model.adversary, dict(model.hparams)
    own = {key: value for key, value in (options.pop("adversary") or {}).items() if key not in UNREAD_BY_ADVERSARY}
    read = {key: value for key, value in options.items() if key not in UNREAD}
    return read, own, adversary.entangled, adversary.disentangled, adversary.regressed


def _copy_calibration(source: DisentanglingAutoencoder, target: DisentanglingAutoencoder) -> None:
    """Everything that :meth:`~spectangle.model.autoencoder.DisentanglingAutoencoder.calibrate` sets."""
    for name in ("flux_scaler", "label_scaler"):
        setattr(target, name, copy.deepcopy(getattr(source, name)))
    if source.encoder.projection is not None and target.encoder.projection is not None:
        target.encoder.projection.load_state_dict(source.encoder.projection.state_dict())
    for name in ("bins", "priors", "residual", "chance"):
        setattr(target.adversary, name, copy.deepcopy(getattr(source.adversary, name)))
