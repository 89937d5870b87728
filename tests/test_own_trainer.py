"""A model in somebody's own Trainer: what it asks for, what it does by itself, and what is measured of it."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.linear_model import Ridge

from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.model.autoencoder import DisentanglingAutoencoder

PAIR = {"teff": -1.0, "logg": -1.0, "m_h": 1.0, "alpha_fe": 1.0}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def data(toy_survey):
    return SpectraDataModule(str(toy_survey), batch_size=64)


def build(data, seed=0, **options):
    data.setup()
    torch.manual_seed(seed)
    options = {"lambdas": PAIR, "bins": {"count": 5}, "latent": 5, "hidden": [16]} | options
    return DisentanglingAutoencoder(data.n_pixels, list(data.labels), **options)


def trainer(epochs=2, **options):
    return L.Trainer(max_epochs=epochs, **({"enable_checkpointing": False} | QUIET | options))


def fit(model, data, epochs=2, **options):
    own = trainer(epochs, **options)
    own.fit(model, datamodule=data)
    return {name: float(value) for name, value in own.logged_metrics.items()}


@pytest.mark.parametrize("condition", ["none", "residual", "entangled"])
def test_a_new_model_is_calibrated_and_a_loaded_one_goes_on(data, tmp_path, condition):
    adversary = {"condition_on": condition, "objective": "capped"}
    by_hand, model = build(data, adversary=adversary), build(data, adversary=adversary)
    by_hand.calibrate(data.train.flux, data.train.targets)
    data.classify_with(by_hand.adversary.classify)
    expected = fit(by_hand, data)
    own = trainer()
    own.fit(model, datamodule=data)
    assert {name: float(value) for name, value in own.logged_metrics.items()} == expected
    own.save_checkpoint(tmp_path / "a.ckpt")
    again = DisentanglingAutoencoder.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    fresh = SpectraDataModule(data.path, batch_size=64)
    (found,) = trainer().validate(again, datamodule=fresh, verbose=False)
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in expected.items() if name in found}
    assert torch.equal(again.adversary.bins.edges, model.adversary.bins.edges) and "val/reconstruction" in found
    resumed = trainer(3)
    resumed.fit(build(data, 1, adversary=adversary), datamodule=fresh, ckpt_path=tmp_path / "a.ckpt")
    assert set(resumed.logged_metrics) == set(expected) and resumed.current_epoch == 3


def test_each_model_asks_for_its_own_bins(data):
    other = build(data, bins={"count": 3})
    alone = fit(other, data)
    fit(build(data), data)  # on the same stars, with five bins
    assert fit(build(data, bins={"count": 3}), data) == alone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_epochs": -1, "max_steps": 18}, "max_epochs is -1; lambda and both learning rates are schedules"),
        ({"check_val_every_n_epoch": 2}, "check_val_every_n_epoch=2, .* each epoch is validated once"),
        ({"val_check_interval": 0.5}, "val_check_interval=0.5"),
        ({"limit_val_batches": 0}, "limit_val_batches=0"),
    ],
)
def test_a_trainer_that_does_not_go_epoch_by_epoch_is_refused(data, options, sentence):
    own = L.Trainer(**({"max_epochs": 2, "enable_checkpointing": False} | QUIET | options))
    with pytest.raises(SpectangleError, match=sentence):
        own.fit(build(data), datamodule=data)


def test_loaders_alone_are_refused(data):
    with pytest.raises(SpectangleError, match=r"The trainer has no data module; .*datamodule=data"):
        trainer().fit(build(data), data.train_dataloader(), data.val_dataloader())


def test_loaders_set_their_stars_up(toy_survey):
    data = SpectraDataModule(str(toy_survey), batch_size=64)
    assert len(data.val_dataloader()) and len(data.train_dataloader())


def test_the_regressor_reads_the_best_checkpoint_of_this_training(data, tmp_path):
    """Lightning calls the second ``best.ckpt`` of a folder ``best-v1.ckpt``: the first is another model's."""

    def measured(folder, lambdas, filename="best"):
        keep = ModelCheckpoint(dirpath=folder, filename=filename, monitor="val/reconstruction")
        reader = DownstreamRegressor(Ridge())
        model = build(data, lambdas=lambdas)
        trainer(3, callbacks=[keep, reader], enable_checkpointing=True).fit(model, datamodule=data)
        kept = type(model).load_from_checkpoint(keep.best_model_path, weights_only=True).eval()
        expected = DownstreamRegressor(Ridge()).score(kept, data)["test/latent/teff/mae"]
        assert reader.metrics["test/latent/teff/mae"] == pytest.approx(expected)
        return expected

    keeps, loses = (dict.fromkeys(PAIR, value) for value in (-5.0, 5.0))
    found = [measured(tmp_path, keeps), measured(tmp_path, loses), measured(tmp_path / "b", loses, "mine")]
    assert found[1] == found[2] != found[0] and np.isfinite(found).all()
