"""The networks of a trained model, laid out for reading many spectra: fewer passes over memory, faster products, the
same numbers to rounding.

Shapes: B stars, P pixels, K labels, Z latent.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from spectangle.model.plain_layers import folded_layers

if TYPE_CHECKING:
    from spectangle.inference.readout import Readout
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["FastLayers", "FastNetworks"]

BATCH = 1024  # that oneDNN lays the weights out for; others work as well


class FastLayers:
    """Fully connected layers with ReLU between them.

    oneDNN adds the bias and applies ReLU inside the product and uses all of the processor's vector width; on AMD's
    processors that takes half of the time of torch's own product, which is Intel's MKL.

    Arguments:
        layers: Weight [n_out, n_in] and bias [n_out] of each.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]):
        names = ["relu"] * (len(layers) - 1) + ["none"]
        self._lay_out([(*layer, name) for layer, name in zip(layers, names, strict=True)])

    def _lay_out(self, layers: Sequence[tuple[Tensor, Tensor, str]]) -> None:
        self.fused = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        self.layers: list[tuple[Any, Tensor, str]] = []
        for weight, bias, activation in layers:
            weight, bias = weight.detach().contiguous(), bias.detach().contiguous()
            laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, BATCH) if self.fused else weight
            self.layers.append((laid_out, bias, activation))

    @torch.inference_mode()
    def __getstate__(self) -> list[tuple[Tensor, Tensor, str]]:
        """Weights in plain order: what oneDNN has laid out for this processor can be neither pickled nor copied."""
        return [(w.to_dense() if self.fused else w, bias, activation) for w, bias, activation in self.layers]

    @torch.inference_mode()
    def __setstate__(self, layers: Sequence[tuple[Tensor, Tensor, str]]) -> None:
        self._lay_out(layers)

    def __call__(self, x: Tensor) -> Tensor:
        for weight, bias, activation in self.layers:
            if self.fused:
                x = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
            else:
                x = functional.linear(x, weight, bias)
                x = x.relu_() if activation == "relu" else x
        return x


class FastNetworks:
    """Encoder, channel, regressor and decoder; the flux scaler's unit is folded into the first and the last layer.

    Arguments:
        network: The autoencoder; its encoder must not need labels.
        readout: The regressor.
    """

    @torch.inference_mode()
    def __init__(self, network: "DisentanglingAutoencoder", readout: "Readout"):
        scale = network.flux_scaler.scale
        projection = network.encoder.projection
        hidden = list(network.encoder.layers)[0 if projection is None else 1 :]
        encoder = folded_layers([*hidden, network.encoder.norm])
        decoder = folded_layers(network.decoder.layers)
        if projection is None:
            encoder[0] = (encoder[0][0] / scale, encoder[0][1])
        self.components = projection and FastLayers([(projection.weight / scale, projection.bias)])
        self.projection, self.scale = projection, scale
        decoder[-1] = (decoder[-1][0] * scale[:, None], decoder[-1][1] * scale)
        self.mean = network.flux_scaler.mean
        self.encoder, self.decoder = FastLayers(encoder), FastLayers(decoder)
        self.decoder_inputs = network.decoder.inputs
        self.activation, self.channel, self.label_scaler = (
            network.encoder.activation,
            network.channel,
            network.label_scaler,
        )
        self.readout = readout
        self.readout_layers = [FastLayers(folded_layers(part.layers)) for part in readout.parts]  # pyright: ignore

    def __call__(self, flux: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Labels [B, K], latent [B, Z] and reconstruction - flux [B, P] of spectra [B, P] without masked pixels.

        A stochastic latent needs ``noise`` [B, Z], the draws of these stars: its mean is never read.
        """
        centred = flux - self.mean
        z = self._latent(centred, noise)
        labels = self.readout.read(z, self.readout_layers)
        return labels, z, self.decoder(self.decoder_inputs(z, self.label_scaler(labels))).sub_(centred)

    def latent(self, flux: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latent [B, Z] alone of spectra [B, P] without masked pixels, with ``noise`` as above."""
        return self._latent(flux - self.mean, noise)

    def _latent(self, centred: Tensor, noise: Tensor | None) -> Tensor:
        z = self.activation(self.encoder(self._read(centred)))
        return z if self.channel is None else self.channel(z, noise)

    def _read(self, centred: Tensor) -> Tensor:
        """What the encoder's layers see of centred spectra [B, P]."""
        if self.components is None or self.projection is None:
            return centred
        components = self.components(centred)
        if not self.projection.noise_level:
            return components
        return self.projection.with_noise_level(centred / self.scale, components)
