"""The projection: the directions that the encoder reads in place of pixels."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression

from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.networks import Encoder
from spectangle.model.projection import Projection

PIXELS = 40


def spectra(n=500, rank=PIXELS):
    """Spectra [n, 40] whose largest directions say nothing of the labels [n, 2], and whose noise is small."""
    random = np.random.default_rng(0)
    labels = random.normal(size=(n, 2))
    shapes = random.normal(size=(2 + 10, PIXELS))
    x = (
        0.2 * labels @ shapes[:2]
        + 3.0 * random.normal(size=(n, 10)) @ shapes[2:]
        + 0.1 * random.normal(size=(n, PIXELS))
    )
    return torch.from_numpy(x[:, :rank]).float(), torch.from_numpy(labels).float()


def test_the_directions_are_those_of_partial_least_squares():
    x, y = spectra()
    projection = Projection(PIXELS, 6, 0)
    projection.fit(x, y)
    theirs = np.linalg.qr(PLSRegression(6, scale=False).fit(x.numpy(), y.numpy()).x_weights_)[0]
    ours = np.linalg.qr(projection.weight.numpy().T)[0]
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-3)


def test_components_are_standardised_and_principal_ones_see_what_is_left():
    x, y = spectra()
    projection = Projection(PIXELS, 3, 4)
    projection.fit(x, y)
    z = projection(x)
    assert z.shape == (500, 7) and z.mean(0).abs().max() < 1e-4
    assert torch.allclose(z.std(0, correction=0), torch.ones(7), atol=1e-3)
    directions = projection.weight / projection.weight.norm(dim=1, keepdim=True)
    assert torch.allclose(directions @ directions.T, torch.eye(7), atol=1e-4)
    rest = (x - x.mean(0)) - (x - x.mean(0)) @ directions[:3].T @ directions[:3]
    largest = torch.linalg.svdvals(rest)[:4].square().sum()
    assert (rest @ directions[3:].T).square().sum() == pytest.approx(float(largest), rel=1e-3)


def test_labels_behind_the_pixels_are_passed_on():
    x, y = spectra()
    projection = Projection(PIXELS, 3, 2, passed=2)
    projection.fit(x, y)
    assert torch.equal(projection(torch.cat([x, y], dim=1))[:, 5:], y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_noise_level_follows_the_noise_of_a_spectrum(dtype):
    """It is standardised, whatever precision the networks have, and rises by the logarithm of the noise."""
    x, y = spectra(2000)
    size = 0.1 * 10 ** torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0))
    x = x + size * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    projection = Projection(PIXELS, 2, 10, passed=2, noise_level=True)
    projection.fit(x, y)
    projection.to(torch.float64 if dtype == torch.float64 else torch.float32)
    told = torch.cat([x, y], dim=1).to(projection.weight.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = projection(told)
    assert outputs.shape == (2000, 15) and outputs.dtype == projection.weight.dtype
    torch.testing.assert_close(outputs[:, 12:14], told[:, PIXELS:])
    level = outputs[:, 14].float()
    assert level.mean().abs() < 1e-3 and level.std() == pytest.approx(1.0, abs=1e-3)
    assert np.corrcoef(level, size[:, 0].log())[0, 1] > 0.9


@pytest.mark.parametrize(("n", "pls", "pca"), [(8, 6, 10), (500, 30, 30), (500, 0, 5), (500, 5, 0)])
def test_few_stars_or_pixels_are_enough(n, pls, pca):
    x, y = spectra(n)
    x[:, 7] = 1.0  # a pixel that never changes
    projection = Projection(PIXELS, pls, pca, noise_level=True)
    projection.fit(x, y)
    z = projection(x)
    assert z.shape[1] == min(pls + pca + 1, PIXELS)  # all directions leave no noise to tell
    assert torch.isfinite(z).all() and z[:, : pls + pca].std(0, correction=0).max() < 1.01


def test_it_does_not_learn():
    x, y = spectra()
    projection = Projection(PIXELS, 4, 4)
    projection.fit(x, y)
    encoder = Encoder(PIXELS, [16, 8], 3, "linear", "batch", projection=projection)
    before = projection.weight.clone()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, weight_decay=0.1)
    encoder(x).square().sum().backward()
    optimizer.step()
    assert torch.equal(projection.weight, before)


def test_the_model_fits_it_to_training_stars_also_where_labels_are_missing():
    x, y = spectra()
    y[:200, 1] = torch.nan
    options = {"hidden": (8,), "latent": 3, "adversary": {}, "incomplete": ["b"], "conditioning": "synthetic"}
    model = DisentanglingAutoencoder(PIXELS, ["a", "b"], pls_components=4, principal_components=2, **options)
    model.calibrate(x, y)
    scaled = model.flux_scaler(x)
    read = model.encoder.projection(torch.cat([scaled, torch.zeros(500, 3)], dim=1))[:, :6]
    assert torch.isfinite(read).all() and torch.allclose(read.std(0, correction=0), torch.ones(6), atol=1e-3)


def test_sigma_has_a_rate_of_its_own():
    options = {"latent": 3, "hidden": (8,), "adversary": {}, "latent_rate": 1.0}
    model = DisentanglingAutoencoder(
        PIXELS, ["a"], optimizer={"lr": 1e-3, "sigma_lr": 1e-2, "weight_decay": 0.1}, **options
    )
    networks, sigma = model.configure_optimizers()[0].param_groups
    assert [id(p) for p in sigma["params"]] == [id(model.channel.log_sigma)] and sigma["lr"] == 1e-2
    assert id(model.channel.log_sigma) not in map(id, networks["params"]) and sigma["weight_decay"] == 0
    alone = DisentanglingAutoencoder(PIXELS, ["a"], optimizer={"lr": 1e-3}, **options).configure_optimizers()[0]
    assert len(alone.param_groups) == 1
