"""The model: an autoencoder that plays against one discriminator per label.

Shapes: B batch, P pixels, K labels, Z latent, D discriminators.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spectangle.data.stars import epoch_seed
from spectangle.errors import SpectangleError
from spectangle.model.adversary import Adversary, Questions
from spectangle.model.conditional_autoencoder import ConditionalAutoencoder
from spectangle.model.epoch_means import EpochMeans, star_counts
from spectangle.model.losses import at_least_single, training_progress
from spectangle.model.optimizers import decay_rates, make_optimizers, optimizer_options
from spectangle.model.training_setup import set_up

__all__ = ["DisentanglingAutoencoder", "frozen"]

HUGE = 1e4  # flux over continuum that no star has


class DisentanglingAutoencoder(ConditionalAutoencoder):
    r"""Adversarial autoencoder of Manteiga et al. 2025 (A&A 694, A326), Fig. 1 and 6.

    Each batch: ``discriminator_steps`` updates of the discriminators on the detached latent, then one update of encoder
    and decoder through discriminators that do not learn:

    .. math:: loss_{AE} = loss_{rec} - \sum_i \lambda_i \, loss_{DISC,i} \qquad \mathrm{(eq. 4)}

    Arguments:
        n_pixels: P, read from the survey.
        labels: Label names, read from the survey; K of them.
        wavelength: Vacuum wavelengths [P] in nm, kept so that a checkpoint knows its grid.
        label_units: Unit of each label, kept for the same reason.
        incomplete: Labels that some stars lack. The decoder is told where one is missing, and in its place what a small
            network of its own reads of it in the spectrum (:class:`~spectangle.model.label_estimator.LabelEstimator`).
        attributes: Number of classes by attribute (instrument, survey of origin), A of them: entangled or disentangled
            like a label (the attributes of Lample et al. 2018, arXiv:1706.00409). Their codes follow the labels in what
            training is given, [B, K + A].
        latent: Z (paper: 25).
        hidden: Widths of the encoder's hidden layers, mirrored in the decoder (paper: 512, 256).
        conditioning: ``observed`` (Fig. 6): labels join z at the decoder only, so that the encoder works on stars with
            unknown labels; ``synthetic`` (Fig. 1): they also join the spectrum at the encoder; ``none``: neither is
            told them, a regular autoencoder.
        pls_components, principal_components: What the encoder reads of a spectrum, see
            :class:`~spectangle.model.projection.Projection`; both 0: every pixel, as in the paper.
        noise_level: With components: whether the encoder also reads how much of the spectrum they leave.
        latent_activation, latent_norm: See :class:`~spectangle.model.networks.Encoder`.
        latent_rate: :math:`\beta` of a stochastic latent, 0 for a deterministic one. Then :math:`z = \mu(x) + \sigma
            \epsilon` with a learned
            :math:`\sigma` for each dimension, :math:`\epsilon` a fixed draw for each star (see :meth:`embed`), and
            :math:`loss_{AE}` gains :math:`\beta / P \; KL(z | x)` (Moyer et al. 2018, arXiv:1805.09458): the decoder is
            told the labels, so that what z says of them again costs rate and buys nothing. With Gaussian pixels,
            :math:`\beta / 2` is their variance in units
            of the scaled flux.
        latent_noise: Standard deviation of Gaussian noise added to z while training.
        input_noise: Gaussian noise added to the spectra while training, in units of each star's own noise. The decoder
            and the discriminators of kept labels learn from noisy spectra, which are not learnt by heart; the
            discriminators of lost
            labels see the latent of the spectra as they are: what they cannot see there, noise does not hide.
        batch_norm: Batch normalisation between layers.
        dropout: Fraction of the encoder's hidden units that are silenced while training.
        flux_scaling: See :class:`~spectangle.model.scaling.FluxScaler`.
        lambdas: :math:`\lambda_i` by label.
        reconstruction_weight: Of :math:`loss_{rec}`; 1 is eq. 4, 0 is an encoder that only its discriminators teach (a
            baseline: what supervision alone gives).
        bins, adversary: Options of :class:`~spectangle.model.adversary.Adversary`.
        optimizer: ``lr``, ``betas``, ``weight_decay`` of AdamW for the autoencoder; ``discriminator_lr``,
            ``discriminator_betas``; ``sigma_lr`` of the sigma of a stochastic latent (default: lr); ``lr_end`` and
            ``discriminator_lr_end``, the fraction of either rate at the end of the training (see
            :func:`~spectangle.model.losses.decay_factor`).
    """

    def __init__(
        self,
        n_pixels: int,
        labels: Sequence[str],
        wavelength: Sequence[float] | None = None,
        label_units: Mapping[str, str] | None = None,
        incomplete: Sequence[str] = (),
        attributes: Mapping[str, int] | None = None,
        latent: int = 25,
        hidden: Sequence[int] = (512, 256),
        conditioning: str = "observed",
        pls_components: int = 0,
        principal_components: int = 0,
        noise_level: bool = False,
        latent_activation: str = "linear",
        latent_norm: str = "batch",
        latent_rate: float = 0.0,
        latent_noise: float = 0.0,
        input_noise: float = 0.0,
        batch_norm: bool = False,
        dropout: float = 0.0,
        flux_scaling: str = "global",
        lambdas: Mapping[str, float] | None = None,
        reconstruction_weight: float = 1.0,
        bins: Mapping[str, Any] | None = None,
        adversary: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ):
        super().__init__(
            n_pixels,
            labels,
            incomplete=incomplete,
            attributes=attributes,
            latent=latent,
            hidden=hidden,
            conditioning=conditioning,
            pls_components=pls_components,
            principal_components=principal_components,
            noise_level=noise_level,
            latent_activation=latent_activation,
            latent_norm=latent_norm,
            stochastic=latent_rate != 0,
            batch_norm=batch_norm,
            dropout=dropout,
            flux_scaling=flux_scaling,
        )
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.latent_noise, self.input_noise, self.latent_rate = latent_noise, input_noise, latent_rate
        self.reconstruction_weight = reconstruction_weight
        self.optimizer_options = optimizer_options(optimizer)
        _check_options(
            {"input_noise": input_noise, "latent_noise": latent_noise, "latent_rate": latent_rate}, self.lr_ends
        )
        self.targets = (*self.labels, *(attributes or {}))
        self.adversary = Adversary(
            self.targets,
            latent,
            lambdas or {},
            bins or {},
            **(adversary or {}),
            attributes=attributes,
            incomplete=incomplete,
        )
        self.pack: Any = None  # what trains this model in its place: the line to a pack, or a stack of its own
        self.loaded = False  # from a checkpoint: what was calibrated is in it
        self._epoch = EpochMeans()

    def setup(self, stage: str) -> None:
        set_up(self, self.trainer, stage)

    def calibrate(self, flux: Tensor, labels: Tensor) -> None:
        """Fit scalers and bins to training flux [N, P] and labels and codes [N, K + A], NaN where one is missing."""
        self.adversary.calibrate(labels, self._targets(labels, self.fit_scalers(flux, labels)))

    def recall(self, flux: Tensor, labels: Tensor) -> None:
        """Fit to training stars, as :meth:`calibrate` takes them, what a checkpoint does not keep: scalers and bins
        stay.
        """
        self.adversary.recall(labels, self._targets(labels, self.told(self.flux_scaler(flux), labels)))

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> None:
        progress = self._progress(batch_index)
        decay_rates(self.optimizers(use_pl_optimizer=False), self.lr_ends, progress)  # pyright: ignore
        if self.pack is not None and self.pack.has_trained:
            return self._count_a_step()
        n = len(batch[0])
        step = self.look(batch, self.draw(n))
        cross_entropy = self.discriminator_step(step["seen"].detach(), step["questions"])
        reconstruction, loss = self.autoencoder_step(step, self.adversary.factor(progress))
        means = {"reconstruction": reconstruction, "loss": loss, "discriminator": cross_entropy}
        self._epoch.add(means, star_counts(batch))

    def _count_a_step(self) -> None:
        """Let Lightning count a step that the pack has taken: one without gradients changes nothing."""
        optimizer: Any = self.optimizers()[0]  # pyright: ignore
        optimizer.zero_grad()
        optimizer.step()

    def draw(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Standard normal numbers of a training step with n stars: what this model needs of ``pixels`` [n, P],
        ``sample`` and ``jitter`` [n, Z] of the latent, ``lost_sample`` and ``lost_jitter`` of that of the spectra as
        they are.
        """
        device = self.device if generator is None else generator.device
        z, p = self.encoder.n_outputs, self.flux_scaler.mean.numel()
        widths = {
            "pixels": p if self.input_noise else 0,
            "sample": z if self.channel else 0,
            "jitter": z if self.latent_noise else 0,
        }
        if self.input_noise and self.adversary.disentangled:
            widths |= {f"lost_{name}": widths[name] for name in ("sample", "jitter")}
        return {name: torch.randn(n, m, device=device, generator=generator) for name, m in widths.items() if m}

    def look(self, batch: tuple[Tensor, ...], draws: Mapping[str, Tensor]) -> dict[str, Any]:
        """What decoder and discriminators meet in a training step: scaled flux ``x`` [B, P], also with noise
        (``noisy``), ``labels`` and ``weights`` of the stars [B, K], the labels as the decoder knows them (``y``), mean
        of the latent and latent ``z`` [B, Z], what the discriminators see of it (``seen``, [B, Z] or [D, B, Z]) and
        what they are asked (``questions``).
        """
        flux, noise, labels, bins, weights = batch
        x = noisy = self.flux_scaler(flux)
        y = self._told(labels, x)
        if "pixels" in draws:  # noise in flux units, of each star's own size
            noisy = torch.addcmul(x, draws["pixels"], self.input_noise * noise[:, None] / self.flux_scaler.scale)
        mean = self._encode(noisy, y)
        z = seen = self._sample(mean, draws.get("sample"), draws.get("jitter"))
        if "pixels" in draws and self.adversary.disentangled:
            lost = self._sample(self._encode(x, y), draws.get("lost_sample"), draws.get("lost_jitter"))
            seen = self.adversary.views(entangled=z, lost=lost)
        return {
            "x": x,
            "noisy": noisy,
            "y": y,
            "labels": labels,
            "weights": weights,
            "mean": mean,
            "z": z,
            "seen": seen,
            "questions": self.adversary.ask(self._targets(labels, y), bins, weights),
        }

    def discriminator_step(self, z: Tensor, questions: Questions) -> Tensor:
        """Update all discriminators on a detached latent; return their cross-entropies [D] before the last update."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)[1]  # pyright: ignore  # so that Lightning counts a batch once
        cross_entropy = torch.zeros(len(self.adversary.weights), device=z.device)
        for _ in range(self.adversary.steps):
            cross_entropy = self.adversary.cross_entropy(z, questions)
            optimizer.zero_grad()
            self._step_scaled(cross_entropy.sum(), optimizer)
        return self.adversary.by_name(cross_entropy.detach())

    def _step_scaled(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Backward and step; with ``16-mixed`` through the scaler that keeps small gradients from vanishing."""
        scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    def autoencoder_step(self, step: Mapping[str, Any], factor: float | Tensor) -> tuple[Tensor, Tensor]:
        """Update encoder and decoder on eq. 4, through discriminators that do not learn; return reconstruction and loss
        in flux units.
        """
        optimizer: Any = self.optimizers()[0]  # pyright: ignore
        optimizer.zero_grad()
        with frozen(self.adversary):
            loss, reconstruction = self.autoencoder_loss(step, factor)
        self.manual_backward(loss)
        optimizer.step()
        return reconstruction, loss.detach() * self.unit

    def autoencoder_loss(self, step: Mapping[str, Any], factor: float | Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 4 over the square of the flux unit (the same minimum, a gradient of order one), with ``factor`` times
        lambda, plus the rate of a stochastic latent and what the estimator learns; and the reconstruction in flux
        units.
        """
        error = self._pixel_error(self.decoder(step["z"], step["y"]) - step["x"])
        loss = self.reconstruction_weight * error.mean() + self._rate(step["mean"])
        if self.estimator is not None:
            loss = loss + self._estimator_loss(step["noisy"], step["labels"], step["weights"])
        if any(self.adversary.lambdas):
            penalty = self.adversary.penalty(step["seen"], step["questions"], factor)
            loss = loss + penalty / self.unit
        return loss, self._flux_error(error.detach())

    def validation_step(self, batch: tuple[Tensor, ...], batch_index: int) -> None:
        flux, _, labels, bins, weights = batch
        x = self.flux_scaler(flux)
        y = self._told(labels, x)
        mean = self._encode(x, y)
        # the same draws each time
        z = self._sample(mean, torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean.device))
        reconstruction = self._flux_error(self._pixel_error(self.decoder(z, y) - x))
        questions = self.adversary.ask(self._targets(labels, y), bins, weights)
        cross_entropy = self.adversary.by_name(self.adversary.cross_entropy(z, questions))
        self._epoch.add({"reconstruction": reconstruction, "discriminator": cross_entropy}, star_counts(batch))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        learning = (self.encoder, self.decoder, *([self.estimator] if self.estimator else []))
        autoencoder = [parameter for module in learning for parameter in module.parameters()]
        sigma = list(self.channel.parameters()) if self.channel else []
        return make_optimizers(autoencoder, sigma, list(self.adversary.parameters()), self.optimizer_options)

    def on_train_epoch_start(self) -> None:
        # every random number of an epoch depends on (seed, epoch) only: a resumed run repeats the uninterrupted one
        torch.manual_seed(epoch_seed(self.trainer.datamodule.seed, self.current_epoch))  # pyright: ignore
        trained = None if self.pack is None else self.pack.train_epoch(self)
        self.trainer.train_dataloader.read = trained is None  # pyright: ignore
        if trained is not None:
            self._epoch.add_sums(*trained)

    def on_train_epoch_end(self) -> None:
        self.trainer.train_dataloader.read = True  # pyright: ignore  # Lightning may fetch a batch before an epoch

    def on_validation_epoch_start(self) -> None:
        """End the training half of the epoch: it is logged and checked before anything is saved."""
        if not self.trainer.sanity_checking:
            self._log_training()

    def on_validation_epoch_end(self) -> None:
        means = self._epoch.take()  # of a sanity check too: they are no part of the first epoch
        if not self.trainer.sanity_checking:
            self._log_discriminators("val", means["discriminator"])
            self.log("val/reconstruction", means["reconstruction"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state, self.loaded = checkpoint["state_dict"], True
        if self.adversary.joint:
            self.adversary.classes = torch.zeros_like(state["adversary.classes"])
            self.adversary.class_prior = torch.zeros_like(state["adversary.class_prior"])
            if self.adversary.bank.n_bins != self.adversary.n_classes:
                self.adversary.build_bank(self.adversary.n_outputs)

    def _targets(self, labels: Tensor, y: Tensor) -> Tensor:
        """Scaled labels without gaps and codes of attributes [B, K + A], of labels and codes [B, K + A] and what the
        decoder is told of them.
        """
        k = len(self.labels)
        return y if len(self.targets) == k else torch.cat([y[:, :k], labels[:, k:].nan_to_num(0.0)], dim=1)

    def _estimator_loss(self, x: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        columns = self.label_scaler.incomplete_columns
        scaled, known, weights = (t.index_select(1, columns) for t in (self.label_scaler(labels), labels, weights))  # pyright: ignore
        return self.estimator.loss(x, scaled, torch.isfinite(known), weights)  # pyright: ignore

    def _sample(self, mean: Tensor, sample: Tensor | None = None, jitter: Tensor | None = None) -> Tensor:
        """Latents [B, Z] as the decoder and the discriminators meet them, of means [B, Z] and standard normal draws."""
        z = self.sample(mean, sample)
        return z if jitter is None else z + self.latent_noise * jitter.to(z)

    def _rate(self, mean: Tensor) -> Tensor | float:
        return (
            0.0 if self.channel is None else self.latent_rate / self.flux_scaler.mean.numel() * self.channel.rate(mean)
        )

    @staticmethod
    def _pixel_error(error: Tensor) -> Tensor:
        """Mean squared error of each pixel [P], of errors [B, P]."""
        return at_least_single(error).square().mean(0)

    def _flux_error(self, pixel_error: Tensor) -> Tensor:
        """Mean squared error in flux units."""
        return (pixel_error * self.flux_scaler.scale.square()).mean()

    def _progress(self, batch_index: int) -> float:
        trainer = self.trainer
        return training_progress(
            self.current_epoch, batch_index, int(trainer.num_training_batches), trainer.max_epochs or 1
        )

    @property
    def unit(self) -> float | Tensor:
        """What the loss is divided by."""
        return 1.0 if self.adversary.lambda_unit == "scaled" else self.flux_scaler.unit**2

    @property
    def lr_ends(self) -> tuple[float, float]:
        return self.optimizer_options["lr_end"], self.optimizer_options["discriminator_lr_end"]

    def _log_training(self) -> None:
        means = self._epoch.take()
        if not means:
            return
        if not all(torch.isfinite(value).all() for value in means.values()):
            largest = float(self.trainer.datamodule.train.flux.abs().max())  # pyright: ignore
            why = (
                f"The flux of a training star is {largest:.3g}: is it a fill value? Mask it (NaN) in the survey"
                if largest > HUGE
                else "Lower optimizer.lr (or the largest lambda), or use flux_scaling=global"
            )
            raise SpectangleError(
                f"Training diverged in epoch {self.current_epoch}: the loss is not a number. {why}; then start again."
            )
        self.adversary.end_epoch(float(means["loss"]))
        self._log_discriminators("train", means["discriminator"])
        self.log_dict({"train/reconstruction": means["reconstruction"], "train/loss": means["loss"]})
        self.log("train/lambda_factor", float(self.adversary.factor(self._progress(0))))

    def _log_discriminators(self, stage: str, cross_entropy: Tensor) -> None:
        gains = self.adversary.chance - cross_entropy
        for name, value, gain in zip(self.adversary.names, cross_entropy, gains, strict=True):
            self.log(f"{stage}/discriminator/{name}", value)
            self.log(f"{stage}/discriminator_gain/{name}", gain)


@contextmanager
def frozen(module: torch.nn.Module):
    """Let gradients flow through a module, but not into it."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)


def _check_options(strengths: Mapping[str, float], lr_ends: Sequence[Any]) -> None:
    if min(strengths.values()) < 0:
        raise SpectangleError(
            f"{', '.join(f'model.{name} is {value}' for name, value in strengths.items())}; they must be at least 0."
        )
    if not all(isinstance(end, (int, float)) and 0 <= end <= 1 for end in lr_ends):
        raise SpectangleError(
            f"optimizer.lr_end is {lr_ends[0]} and optimizer.discriminator_lr_end {lr_ends[1]}; they are "
            "fractions of the rates, from 0 to 1 "
            "(1 = the rate does not fall)."
        )
