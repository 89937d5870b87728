"""The model: who moves in which step, what lambda 0 means, and that a checkpoint is the model."""

import copy
from math import cos, pi

import lightning as L
import numpy as np
import pytest
import torch
from conftest import write_toy_survey

from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder

ADVERSARIES = [
    {},
    {"objective": "capped", "condition_on": "entangled"},
    {"objective": "uniform", "condition_on": "residual"},
    {"objective": "flipped", "kind": "conv"},
    {"batch_norm": True, "ensemble": 2},
    {"loss": "binary"},
    {"entangle_with": "regression", "ensemble": 2, "condition_on": "entangled", "objective": "capped"},
]
PAIR = {"teff": -1e-3, "logg": -1e-3, "m_h": 1e-3, "alpha_fe": 1e-3}


@pytest.fixture
def data(toy_survey):
    data = SpectraDataModule(str(toy_survey), batch_size=64)
    data.setup()
    return data


def build(data, lambdas=PAIR, adversary=None, **options):
    torch.manual_seed(0)
    options = {"latent": 5, "hidden": [16]} | options
    model = DisentanglingAutoencoder(
        data.n_pixels, list(data.labels), lambdas=lambdas, bins={"count": 5}, adversary=adversary or {}, **options
    )
    model.calibrate(data.train.flux, data.train.labels)
    data.classify_with(model.adversary.classify)
    return model


def fit(model, data, epochs=2, **options):
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, datamodule=data)
    return trainer


def first_batch(data, n=64):
    stars = data.train
    return tuple(values[:n] for values in (stars.flux, stars.noise, stars.targets, stars.classes, stars.weights))


def weights(module):
    return copy.deepcopy(dict(module.named_parameters()))


def moved(module, before):
    return any(not torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_each_step_moves_its_own_networks_only(data, adversary):
    model = build(data, adversary=adversary)
    model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    optimizers = model.configure_optimizers()
    model.optimizers = lambda use_pl_optimizer=True: optimizers
    model.manual_backward = lambda loss: loss.backward()
    batch = first_batch(data)
    step = model.look(batch, model.draw(64))
    before = {part: weights(getattr(model, part)) for part in ("encoder", "decoder", "adversary")}
    model.discriminator_step(step["seen"].detach(), step["questions"])
    assert [moved(getattr(model, part), before[part]) for part in before] == [False, False, True]

    before = {part: weights(getattr(model, part)) for part in ("encoder", "decoder", "adversary")}
    model.autoencoder_step(step, factor=0.5)
    assert [moved(getattr(model, part), before[part]) for part in before] == [True, True, False]
    assert all(parameter.requires_grad for parameter in model.adversary.parameters())


def test_all_lambda_zero_is_a_plain_autoencoder(data):
    """Whatever the discriminators do, the autoencoder is the one that a plain loop trains."""
    latents = []
    for adversary in ({"discriminator_steps": 0}, {"discriminator_steps": 7, "hidden": [8, 8]}):
        model = build(data, lambdas={}, adversary=adversary)
        fit(model, data)
        latents.append(model.embed(data.test.flux))
    assert (latents[0] == latents[1]).all()
    assert (latents[0] == plain_loop(build(data, lambdas={}, adversary={"discriminator_steps": 0}), data)).all()


def plain_loop(model, data, epochs=2):
    optimizer = torch.optim.AdamW(
        [*model.encoder.parameters(), *model.decoder.parameters()], lr=1e-3, weight_decay=0.0, fused=True
    )
    batches = -(-len(data.train) // 64)
    for epoch in range(epochs):
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(epoch))
        for i, rows in enumerate(order.tensor_split(batches)):
            optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + cos(pi * (epoch + i / batches) / epochs))
            x, y = model.flux_scaler(data.train.flux[rows]), model.label_scaler(data.train.labels[rows])
            optimizer.zero_grad()
            (model.decoder(model.encoder(x), y) - x).square().mean().backward()
            optimizer.step()
    return model.embed(data.test.flux)


def test_a_batch_counts_once(data):
    model = build(data, adversary={"discriminator_steps": 3})
    trainer = fit(model, data, epochs=2)
    assert trainer.global_step == 2 * len(data.train_dataloader())


def test_a_sanity_check_is_no_part_of_the_first_epoch(data):
    found = []
    for steps in (0, 2):
        trainer = fit(build(data), data, epochs=1, num_sanity_val_steps=steps)
        found.append({name: float(value) for name, value in trainer.logged_metrics.items()})
    assert "train/reconstruction" in found[0] and found[1] == found[0]


@pytest.mark.parametrize("adversary", [{}, {"discriminators": "joint"}, {"schedule": "plateau"}])
@pytest.mark.parametrize("conditioning", ["observed", "synthetic"])
def test_a_reloaded_model_gives_the_same_latents(data, tmp_path, adversary, conditioning):
    lambdas = {"teff": 1e-3, "logg": 1e-3} if adversary.get("discriminators") else PAIR
    model = build(data, lambdas=lambdas, adversary=adversary, conditioning=conditioning, dropout=0.1)
    fit(model, data, epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    again = DisentanglingAutoencoder.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert (again.embed(data.test.flux, data.test.labels) == model.embed(data.test.flux, data.test.labels)).all()
    assert torch.equal(again.flux_scaler.mean, model.flux_scaler.mean) and again.labels == data.labels


def test_reconstruction_is_in_flux_units_whatever_the_scaling(data):
    for scaling in ("global", "pixel", "none"):
        model = build(data, lambdas={}, flux_scaling=scaling)
        trainer = fit(model, data, epochs=1)
        z = torch.from_numpy(model.embed(data.validation.flux))
        error = (model.eval().decode(z, data.validation.labels) - data.validation.flux).square().mean().detach()
        assert float(trainer.callback_metrics["val/reconstruction"]) == pytest.approx(float(error), rel=1e-3)


def test_lambda_means_the_same_in_flux_units(data):
    """Dividing flux and lambda's unit by the same number changes nothing: eq. 4 in flux units."""
    model = build(data, adversary={"objective": "neg_ce", "lambda_unit": "flux"})
    model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    optimizers = model.configure_optimizers()
    model.optimizers = lambda use_pl_optimizer=True: optimizers
    model.manual_backward = lambda loss: None
    batch = first_batch(data)
    step = model.look(batch, model.draw(64))
    penalty = model.adversary.penalty(step["seen"], step["questions"], 0.5)
    reconstruction, loss = model.autoencoder_step(step, factor=0.5)
    assert penalty != 0 and float(loss) == pytest.approx(float(reconstruction + penalty), rel=1e-5)


def test_lost_labels_are_fought_in_the_clean_latent_and_kept_ones_taught_in_the_noisy_one(data):
    model = build(data, input_noise=1.0)
    lost = torch.tensor(model.adversary.lambdas) > 0
    seen = []
    model.discriminator_step = lambda z, *rest: (seen.append(z), torch.zeros(4))[1]
    model.autoencoder_step = lambda step, *rest: (
        seen.append(step["z"].detach()),
        (torch.zeros(()), torch.zeros(())),
    )[1]
    optimizers = model.configure_optimizers()
    model._progress, model.optimizers = lambda batch_index: 0.5, lambda **options: optimizers
    stars = data.train
    model.training_step((stars.flux, stars.noise, stars.labels, stars.classes, stars.weights), 0)
    views, noisy = seen
    clean = model.encoder(model.flux_scaler(stars.flux)).detach()
    assert lost.any() and not lost.all()
    for i in range(len(lost)):
        torch.testing.assert_close(views[i], clean if lost[i] else noisy)
    assert not torch.allclose(clean, noisy, atol=1e-3)


def test_input_noise_has_the_size_of_each_stars_own_noise(data):
    model = build(data, input_noise=2.0)
    x, noise = torch.zeros(2, 20000), torch.tensor([0.01, 0.03])
    model.flux_scaler.scale = torch.tensor(0.5)
    model.flux_scaler.mean = torch.zeros(20000)
    model._encode = lambda x, y: torch.zeros(2, 5)
    batch = (x, noise, data.train.labels[:2], data.train.classes[:2], data.train.weights[:2])
    spread = model.look(batch, model.draw(2))["noisy"].std(dim=1)
    torch.testing.assert_close(spread, 2.0 * noise / 0.5, rtol=0.05, atol=0)
    model.input_noise = 0.0
    assert not model.look(batch, model.draw(2))["noisy"].any()


def test_the_observed_model_never_looks_at_the_labels_of_new_stars(data):
    model = build(data)
    assert (model.embed(data.test.flux) == model.embed(data.test.flux, torch.zeros_like(data.test.labels))).all()
    with pytest.raises(SpectangleError, match="needs the labels too"):
        build(data, conditioning="synthetic").embed(data.test.flux)


@pytest.mark.filterwarnings("ignore")
def test_divergence_stops_the_training_and_names_the_epoch(data):
    model = build(data, optimizer={"lr": 1e12})
    with pytest.raises(SpectangleError, match="diverged in epoch 0"):
        fit(model, data)


def test_a_disentangled_label_leaves_the_latent(tmp_path):
    """A probe reads a neutral label from z, and not one that the adversary removed."""
    from sklearn.linear_model import Ridge

    data = SpectraDataModule(str(write_toy_survey(tmp_path / "toy.h5", n=1500)), batch_size=128)
    data.setup()
    r2 = {}
    for name, value in (("neutral", 0.0), ("removed", 3e-3)):
        adversary = {"discriminator_steps": 5, "schedule": "linear", "objective": "capped", "lambda_unit": "flux"}
        model = build(data, lambdas={"teff": value}, adversary=adversary, optimizer={"discriminator_lr": 3e-3})
        fit(model, data, epochs=20)
        fitted = Ridge().fit(model.embed(data.train.flux), data.train.labels[:, 0].numpy())
        r2[name] = fitted.score(model.embed(data.test.flux), data.test.labels[:, 0].numpy())
    assert r2["neutral"] > 0.8 and r2["removed"] < 0.15


def test_each_rate_falls_to_its_own_end(data):
    model = build(data, optimizer={"lr": 1e-3, "lr_end": 0.0, "discriminator_lr": 2e-3, "discriminator_lr_end": 0.2})
    trainer = fit(model, data, epochs=2)
    batches = int(trainer.num_training_batches)
    falling = 0.5 * (1 + cos(pi * (1 + (batches - 1) / batches) / 2))  # at the last batch
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([1e-3 * falling, 2e-3 * (0.2 + 0.8 * falling)])


def stochastic(data, **options):
    model = build(data, latent_rate=1.0, latent_norm="none", **options).eval()
    model.flux_scaler.fit(data.train.flux)
    return model


def test_the_latent_of_a_star_is_one_fixed_draw(data):
    """Not the mean, the same whenever it is asked for, and of the star, not of its place."""
    model, stars = stochastic(data), data.test
    z = model.embed_stars(stars)
    mean = model.encode(stars.flux).detach().numpy()
    assert (z == model.embed_stars(stars)).all() and not np.allclose(z, mean, atol=0.05)
    turned = model.embed(stars.flux.flip(0), None, stars.source_id[::-1].copy())
    np.testing.assert_allclose(turned[::-1], z, atol=1e-6)
    noise = (z - mean) / model.channel.log_sigma.exp().detach().numpy()
    assert abs(noise.mean()) < 0.15 and noise.std() == pytest.approx(1, abs=0.15)


def test_the_rate_is_the_kl_divergence_of_two_gaussians(data):
    model = stochastic(data)
    mean = torch.randn(50, 5)
    sigma = model.channel.log_sigma.exp()
    p = torch.distributions.Normal(mean, sigma.expand_as(mean))
    expected = torch.distributions.kl_divergence(p, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(model.channel.rate(mean), expected)


def test_a_rate_that_is_never_worth_it_empties_the_latent(data):
    model = build(data, lambdas={}, latent_rate=1e4, latent_norm="none", optimizer={"lr": 1e-2})
    fit(model, data, epochs=20)
    z, mean = model.embed_stars(data.test), model.encode(data.test.flux).detach()
    assert mean.std(0).max() < 0.1 and z.std() > 0.5


def test_without_a_rate_the_latent_is_the_mean(data):
    model = build(data)
    assert model.channel is None
    assert (model.embed_stars(data.test) == model.embed(data.test.flux)).all()


def test_half_precision_scales_the_losses_of_both_players(data):
    """With a scale of 1024 the gradients are the same: both optimizers step through the scaler."""
    ends = []
    for scale in (None, 1024.0):
        model = build(data, adversary={"discriminator_steps": 2})
        model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        optimizers = model.configure_optimizers()
        model.optimizers = lambda use_pl_optimizer=True, optimizers=optimizers: optimizers
        scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        scaled = []
        if scaler is not None:
            model.trainer.precision_plugin.scaler = scaler
            used = scaler.scale
            scaler.scale = lambda loss, used=used, scaled=scaled: scaled.append(loss) or used(loss)
        batch = first_batch(data)
        step = model.look(batch, model.draw(64))
        model.discriminator_step(step["seen"].detach(), step["questions"])
        assert len(scaled) == (0 if scale is None else 2)
        ends.append(copy.deepcopy(dict(model.adversary.named_parameters())))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name])


def test_an_option_of_the_optimizers_that_is_none_is_refused(data):
    with pytest.raises(SpectangleError, match="no key optimizer.learning_rate: nothing would read it"):
        build(data, optimizer={"learning_rate": 1e-9})
