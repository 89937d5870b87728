"""The fast networks of prediction are the trained ones, to rounding, whatever the model's options are."""

import numpy as np
import pytest
import torch

from spectangle.inference.fast_networks import FastLayers, FastNetworks
from spectangle.inference.read import read_spectra
from spectangle.inference.readout import Readout
from spectangle.inference.trained import TrainedModel
from spectangle.model.autoencoder import DisentanglingAutoencoder

VARIANTS = [
    {},
    {"batch_norm": True, "flux_scaling": "pixel"},
    {"latent_norm": "none", "latent_activation": "sigmoid", "flux_scaling": "none"},
    {"dropout": 0.3, "hidden": (16,)},
    {"latent_rate": 1.0},
    {"pls_components": 6, "principal_components": 3, "flux_scaling": "pixel"},
    {"pls_components": 6, "principal_components": 3, "noise_level": True, "conditioning": "none"},
]


def trained_model(options: dict) -> TrainedModel:
    """A model whose scalers and normalisations have seen data."""
    torch.manual_seed(0)
    flux, labels = (
        0.8 + 0.1 * torch.randn(300, 40),
        torch.randn(300, 2) * torch.tensor([700.0, 0.3]) + torch.tensor([5000.0, 0.0]),
    )
    network = DisentanglingAutoencoder(40, ["teff", "m_h"], **{"latent": 5, "hidden": (32, 16)} | options)
    network.flux_scaler.fit(flux)
    network.label_scaler.fit(labels)
    if network.encoder.projection is not None:
        network.encoder.projection.fit(network.flux_scaler(flux), labels)
    network.decode(network.encode(flux), labels)  # moves the running means
    readout = Readout([{"sizes": [5, 20, 2]}])
    readout.parts[0].label_mean.copy_(torch.tensor([5000.0, 0.0]))
    return TrainedModel(network.eval(), readout.eval(), {}, {})


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options) or "default")
@torch.no_grad()
def test_fast_is_trained(options: dict, fused: bool, monkeypatch):
    if not fused:  # a build of torch without oneDNN
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = trained_model(options)
    fast = FastNetworks(model.network, model.readout)
    for n in (1, 7, 1025):
        flux = 0.8 + 0.1 * torch.randn(n, 40)
        noise = model.network.draws(None, n)
        labels, z, residual = fast(flux, noise)
        expected = model.network.encode(flux, noise=noise)
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(labels, model.readout(expected), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            residual, model.network.decode(expected, model.readout(expected)) - flux, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options) or "default")
def test_encoding_reads_the_same_latents_and_nothing_else(options: dict, monkeypatch):
    """It decoded, compared and read labels for nothing."""
    model = trained_model(options)
    model.network.hparams["wavelength"] = 846.0 + np.arange(40)
    flux = (0.8 + 0.1 * torch.randn(2100, 40)).numpy()
    flux[3, 5], flux[1500], ids = np.nan, np.nan, np.arange(7, 2107)
    expected = read_spectra([model], flux, None, ids).latent
    monkeypatch.setattr(FastNetworks, "__call__", lambda *_: pytest.fail("all was read"))
    latent = model.encode(flux, source_id=ids)
    assert latent.tobytes() == expected.tobytes() and np.isnan(latent).all(axis=1).nonzero()[0].tolist() == [1500]


@torch.no_grad()
def test_the_mean_of_a_stochastic_latent_is_not_read():
    model = trained_model({"latent_rate": 1.0})
    fast = FastNetworks(model.network, model.readout)
    with pytest.raises(TypeError):
        fast(torch.ones(2, 40))


def test_packing_leaves_the_network_alone():
    model = trained_model({})
    before = {name: values.clone() for name, values in model.network.state_dict().items()}
    FastNetworks(model.network, model.readout)
    for name, values in model.network.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)


def test_layers_need_no_relu_at_the_end():
    assert (FastLayers([(-torch.eye(3), torch.zeros(3))])(torch.ones(2, 3)) == -1).all()
