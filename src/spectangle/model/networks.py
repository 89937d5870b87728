"""Networks: encoder, decoder and the bank of discriminators.

Shapes: B batch, P pixels, K labels, Z latent, D discriminators, C bins (the largest number among discriminators).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spectangle.errors import SpectangleError
from spectangle.model.losses import at_least_single
from spectangle.model.projection import Projection

__all__ = ["Decoder", "DiscriminatorBank", "Encoder", "NoisyChannel", "mlp"]


def mlp(sizes: Sequence[int], batch_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Build fully connected layers with ReLU (and dropout) between them: sizes[0] -> ... -> sizes[-1]."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers.append(nn.Linear(n_in, n_out))
        if i < len(sizes) - 2:
            layers += [nn.BatchNorm1d(n_out)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))  # one pass over memory less, and nobody needs what it was
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Map a scaled spectrum [B, P] (and labels [B, K] if conditional) to the latent space [B, Z].

    Paper, section 2.1.2: 800-512-256-25, fully connected, ReLU.

    Arguments:
        n_inputs: P, or P + K if conditional.
        hidden: Widths of the hidden layers.
        latent: Z.
        activation: ``linear``, or ``sigmoid`` as in the authors' code.
        norm: ``batch`` normalises each latent over the batch, without affine parameters, so that traces of a label
            cannot shrink below what a discriminator sees; ``none`` leaves the latent as it is.
        batch_norm: Batch normalisation between hidden layers.
        dropout: Fraction of hidden units that are silenced while training.
        projection: What comes before the hidden layers, from n_inputs to fewer; None: they see all inputs.
    """

    def __init__(
        self,
        n_inputs: int,
        hidden: Sequence[int],
        latent: int,
        activation: str,
        norm: str,
        batch_norm: bool = False,
        dropout: float = 0.0,
        projection: Projection | None = None,
    ):
        super().__init__()
        if latent < 1:
            raise SpectangleError(f"model.latent is {latent}; a latent space needs at least 1 dimension.")
        activations = {"linear": nn.Identity, "sigmoid": nn.Sigmoid}
        norms = {"none": lambda: nn.Identity(), "batch": lambda: nn.BatchNorm1d(latent, affine=False)}
        if activation not in activations:
            raise SpectangleError(f"model.latent_activation is '{activation}'; it must be linear or sigmoid.")
        if norm not in norms:
            raise SpectangleError(f"model.latent_norm is '{norm}'; it must be batch or none.")
        n_read = n_inputs if projection is None else projection.n_outputs
        layers = mlp([n_read, *hidden, latent], batch_norm, dropout)
        self.layers = layers if projection is None else nn.Sequential(projection, *layers)
        self.n_outputs = latent
        self.norm = norms[norm]()
        self.activation = activations[activation]()

    @property
    def projection(self) -> Projection | None:
        """What the inputs pass first, if anything."""
        return first if isinstance(first := self.layers[0], Projection) else None

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activation(self.norm(self.layers(inputs)))


class NoisyChannel(nn.Module):
    r"""Add noise of a learned size to each dimension of a latent: :math:`z = \mu + \sigma \epsilon`.

    The draw of a star follows from its id and a random number of the model's own, ``salt``, which follows from the
    seed: who has a table of latents and ids, but neither the model nor its config, cannot take the noise off.

    Arguments:
        latent: Z.
    """

    salt: Tensor

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("salt", torch.randint(2**62, ()))
        self.log_sigma = nn.Parameter(torch.full((latent,), -1.0))

    def forward(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Sample [B, Z] of means [B, Z] with standard normal noise [B, Z]."""
        return torch.addcmul(mean, self.log_sigma.exp().to(mean), noise)

    def rate(self, mean: Tensor) -> Tensor:
        r"""Mean over the batch of :math:`KL(N(\mu, \sigma^2) | N(0, 1))` in nats, summed over the latent."""
        return (0.5 * (at_least_single(mean).square() + (2 * self.log_sigma).exp() - 1) - self.log_sigma).sum(1).mean()


class Decoder(nn.Module):
    """Map latent [B, Z] and scaled labels [B, K] to a scaled spectrum [B, P]: the encoder mirrored.

    With ``n_labels`` 0 it is that of a regular autoencoder, which is told nothing but the latent.
    """

    def __init__(self, latent: int, n_labels: int, hidden: Sequence[int], n_pixels: int, batch_norm: bool):
        super().__init__()
        self.n_labels = n_labels
        self.layers = mlp([latent + n_labels, *reversed(hidden), n_pixels], batch_norm)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.layers(self.inputs(z, labels))

    def inputs(self, z: Tensor, labels: Tensor) -> Tensor:
        """What the layers see [B, Z + K] or [B, Z]."""
        return torch.cat([z, labels], dim=1) if self.n_labels else z


class DiscriminatorBank(nn.Module):
    """All discriminators as one network: one batched matrix product per layer, not one per discriminator.

    Discriminators share nothing: the weights of layer l are [D, n_in, n_out].

    Arguments:
        n_inputs: Width of the input of each discriminator (Z, and the kept labels if conditional).
        n_bins: Number of bins of each discriminator, D numbers; spare outputs are masked.
        hidden: Widths of the hidden layers (paper: 64, 32).
        kind: ``mlp``, or ``conv``: two convolutions along the latent before the hidden layers, as in the authors' tool.
        batch_norm: Batch normalisation of the hidden layers.
    """

    spare: Tensor

    def __init__(
        self, n_inputs: int, n_bins: Sequence[int], hidden: Sequence[int], kind: str = "mlp", batch_norm: bool = False
    ):
        super().__init__()
        if kind not in ("mlp", "conv"):
            raise SpectangleError(f"adversary.kind is '{kind}'; it must be mlp or conv.")
        self.n_bins = list(n_bins)
        d = len(self.n_bins)
        channels = (8, 8) if kind == "conv" else ()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(d * n_in, d * n_out, kernel_size=3, padding=1, groups=d)
            for n_in, n_out in zip((1, *channels), channels, strict=False)
        )
        sizes = [n_inputs * (channels[-1] if channels else 1), *hidden, max(self.n_bins)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(d, i, o)) for i, o in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(d, 1, o)) for o in sizes[1:])
        self.norms = nn.ModuleList(nn.BatchNorm1d(d * o) for o in hidden) if batch_norm else None
        spare = torch.arange(max(self.n_bins)) >= torch.tensor(self.n_bins)[:, None]
        self.register_buffer("spare", spare[:, None, :], persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Linear`` does: uniform within 1 / sqrt(n_in)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        for layer in self.convolutions:
            layer.reset_parameters()  # pyright: ignore

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [D, B, C] of inputs [B, n_inputs] (the same for all) or [D, B, n_inputs]."""
        d = len(self.n_bins)
        h = inputs if inputs.dim() == 3 else inputs.expand(d, *inputs.shape)
        if len(self.convolutions):
            h = self._convolve(h)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < len(self.weights) - 1:
                h = torch.relu_(self._normalise(h, layer))
        return h.masked_fill(self.spare, -torch.inf) if min(self.n_bins) < max(self.n_bins) else h

    def _convolve(self, h: Tensor) -> Tensor:
        d, b, n = h.shape
        channels = h.transpose(0, 1)
        for layer in self.convolutions:
            channels = torch.relu(layer(channels))
        return channels.reshape(b, d, -1).transpose(0, 1)

    def _normalise(self, h: Tensor, layer: int) -> Tensor:
        if self.norms is None:
            return h
        d, b, n = h.shape
        return self.norms[layer](h.transpose(0, 1).reshape(b, d * n)).reshape(b, d, n).transpose(0, 1)
