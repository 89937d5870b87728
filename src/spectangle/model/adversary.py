"""The adversary: discriminators, the bins they are asked for, and what the encoder gains by fooling them.

Shapes: B batch, K labels, Z latent, D discriminators (K, or K times ensemble, or 1 if joint), C bins.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spectangle.configs.label_lambdas import lambda_by_label
from spectangle.errors import SpectangleError
from spectangle.model.losses import (
    OBJECTIVES,
    SCHEDULES,
    adversarial_loss,
    cross_entropy,
    label_likelihood,
    lambda_factor,
    star_shares,
)
from spectangle.model.networks import DiscriminatorBank
from spectangle.model.priors import BinPriors
from spectangle.model.scaling import LabelBins, ResidualLabels

__all__ = ["CHOICES", "Adversary", "Questions"]

CHOICES = {
    "objective": OBJECTIVES,
    "loss": ("categorical", "binary"),
    "condition_on": ("none", "entangled", "residual"),
    "schedule": SCHEDULES,
    "discriminators": ("multi", "joint"),
    "entangle_with": ("bins", "regression"),
    "lambda_unit": ("scaled", "flux"),
}


class Questions(NamedTuple):
    """What the discriminators are asked about the stars of a batch: the same in each of their steps, and of the
    encoder.

    Attributes:
        entangled: Scaled labels that are kept [B, k], which some of them see and which others are asked for.
        classes: Class that is to be told [D, B]; -1 where there is none, 0 where the label itself is to be told.
        labels: Scaled label that is to be told [D, B]; [0] if none is.
        shares: Of the stars in the average [D, B], see :func:`~spectangle.model.losses.star_shares`.
    """

    entangled: Tensor
    classes: Tensor
    labels: Tensor
    shares: Tensor


class Adversary(nn.Module):
    r"""One discriminator per label (paper, section 2.1.1), each with its own :math:`\lambda_i` (eq. 4).

    :math:`\lambda_i > 0` disentangles label i from the latent, :math:`\lambda_i < 0` entangles it,
    0 leaves it alone; its discriminator then only watches.

    Arguments:
        labels: Names, K of them.
        latent: Z.
        lambdas: :math:`\lambda_i` by label; labels that are not named get that of ``others``, or 0.
        bins: ``count`` and ``strategy`` of :class:`~spectangle.model.scaling.LabelBins`, and ``entangled_count``: bins
            of the labels with a negative lambda (null: ``count``).
        discriminator_steps: Updates of all discriminators per update of the autoencoder.
        hidden: Widths of each discriminator (paper: 64, 32).
        kind: ``mlp`` or ``conv``.
        batch_norm: Batch normalisation inside the discriminators.
        objective: What the encoder is asked for, see :func:`~spectangle.model.losses.adversarial_loss`.
        loss: ``categorical``, or ``binary`` as eq. 2 is printed.
        condition_on: ``none``; ``entangled``: discriminators of disentangled labels also see the entangled ones;
            ``residual``: they are asked for bins of what the kept labels do not explain.
        schedule: How lambda grows, see :func:`~spectangle.model.losses.lambda_factor`.
        warmup: Fraction of the training over which ``linear`` grows.
        plateau_steps, plateau_patience: ``plateau`` raises lambda by lambda / steps whenever the autoencoder loss has
            not improved for ``patience`` epochs (the authors' ``dynamic_learning``: STEPS and NO_CHANGE).
        discriminators: ``multi``, or ``joint``: one discriminator over the combinations of bins that occur, the
            traditional method that the paper argues against.
        ensemble: Discriminators per label.
        entangle_with: What the discriminators of entangled labels are asked for: ``bins``, or by ``regression`` the
            label itself (see
            :func:`~spectangle.model.losses.label_likelihood`), of which bins throw a part away.
        lambda_unit: ``scaled``: lambda weighs nats against the mean squared error of the scaled flux, the fraction of
            the spectra's variance
            that is not reconstructed: the same on every survey; ``flux``: against squared flux, as in the paper.
        lambda_scale: All lambdas are multiplied by this (the paper's recipe: 1e-3, with ``lambda_unit=flux``).
        entangled_scale: And those below 0 by this too: what the latent keeps against what it loses.
        attributes: Number of classes by attribute, for those of the labels that have classes: their codes 0, 1, ... are
            the bins.
        incomplete: Labels that some stars lack. If a kept one is among them, discriminators of attributes do not see
            the kept labels: what stands for a missing one would tell them the survey that a star comes from.

    Raises:
        SpectangleError: An option is unknown or a lambda is for a label that the survey lacks.
    """

    weights: Tensor
    sees_entangled: Tensor
    chance: Tensor
    plateau: Tensor
    classes: Tensor
    class_prior: Tensor
    # as tensors: an index that is a list waits for a GPU at each use
    entangled_columns: Tensor
    is_regressed: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        latent: int,
        lambdas: Mapping[str, float],
        bins: Mapping,
        discriminator_steps: int = 5,
        hidden: Sequence[int] = (64, 32),
        kind: str = "mlp",
        batch_norm: bool = False,
        objective: str = "neg_ce",
        loss: str = "categorical",
        condition_on: str = "none",
        schedule: str = "constant",
        warmup: float = 0.3,
        plateau_steps: int = 10,
        plateau_patience: int = 5,
        discriminators: str = "multi",
        ensemble: int = 1,
        entangle_with: str = "bins",
        lambda_unit: str = "scaled",
        lambda_scale: float = 1.0,
        entangled_scale: float = 1.0,
        attributes: Mapping[str, int] | None = None,
        incomplete: Sequence[str] = (),
    ):
        super().__init__()
        _check_choices(
            objective=objective, loss=loss, condition_on=condition_on, schedule=schedule, discriminators=discriminators
        )
        _check_choices(entangle_with=entangle_with, lambda_unit=lambda_unit)
        if discriminator_steps < 0 or ensemble < 1:
            raise SpectangleError("adversary.discriminator_steps must be at least 0 and adversary.ensemble at least 1.")
        self.labels, self.latent = tuple(labels), latent
        self.objective, self.loss, self.condition_on = objective, loss, condition_on
        self.schedule, self.warmup, self.lambda_unit = schedule, warmup, lambda_unit
        self.plateau_steps, self.plateau_patience = plateau_steps, plateau_patience
        self.joint, self.ensemble = discriminators == "joint", ensemble
        self.incomplete = set(incomplete)
        self._take_sides(lambdas, list(attributes or {}), lambda_scale, entangled_scale, entangle_with)
        self.steps = discriminator_steps if any(self.lambdas) else min(discriminator_steps, 1)
        self._network: dict = {"hidden": hidden, "kind": kind, "batch_norm": batch_norm}
        self.bins = LabelBins(self.labels, **self._bins(bins), classes=attributes)
        self.residual: ResidualLabels | None = None
        self.register_buffer("chance", torch.zeros(len(self.names)))
        self.priors: BinPriors
        # plateau: fraction of lambda, best loss so far, epochs since it improved
        self.register_buffer("plateau", torch.tensor([0.0, torch.inf, 0.0]))
        if self.joint:
            self._set_up_joint()
        self.build_bank(self.n_outputs)

    def _take_sides(
        self, lambdas: Mapping[str, float], with_classes: list[str], scale: float, entangled: float, how: str
    ) -> None:
        """Which labels are kept, which are lost, and which of the kept ones are regressed."""
        values = lambda_by_label(lambdas, [name for name in self.labels if name not in with_classes], with_classes)
        scaled = [scale * values[name] for name in self.labels]
        self.lambdas = [value * entangled if value < 0 else value for value in scaled]
        self.entangled = [i for i, value in enumerate(self.lambdas) if value < 0]
        self.disentangled = [i for i, value in enumerate(self.lambdas) if value > 0]
        self.attributes = [i for i, name in enumerate(self.labels) if name in with_classes]
        regressed = how == "regression" and not self.joint
        self.regressed = [i for i in self.entangled if i not in self.attributes] if regressed else []
        self.register_buffer("entangled_columns", torch.tensor(self.entangled, dtype=torch.int64), persistent=False)
        if self.condition_on == "residual" and set(self.attributes) & set(self.disentangled):
            raise SpectangleError(
                "adversary.condition_on=residual has no residual of an attribute with classes; use "
                "condition_on=entangled."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What is reported one by one: the labels, or ``joint``."""
        return ("joint",) if self.joint else self.labels

    @property
    def n_classes(self) -> list[int]:
        """Number of classes of each discriminator."""
        return [self.classes.shape[0]] if self.joint else self.bins.counts * self.ensemble

    @property
    def n_outputs(self) -> list[int]:
        """Number of outputs of each discriminator: its classes, or median and log scale of a label."""
        return [2 if regressed else n for n, regressed in zip(self.n_classes, self._regresses(), strict=True)]

    def build_bank(self, n_classes: Sequence[int]) -> None:
        """(Re)build the discriminators; a joint one learns its number of classes from the stars."""
        weights = [self._joint_lambda()] if self.joint else [v / self.ensemble for v in self.lambdas] * self.ensemble
        extra = len(self.entangled) if self.condition_on == "entangled" else 0
        self.bank = DiscriminatorBank(self.latent + extra, n_classes, **self._network)
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.register_buffer("is_regressed", torch.tensor(self._regresses())[:, None], persistent=False)
        sees_entangled = [value > 0 and self._conditional(d % len(self.labels)) for d, value in enumerate(weights)]
        self.register_buffer(
            "sees_entangled", torch.tensor(sees_entangled, dtype=torch.float32)[:, None, None], persistent=False
        )

    def calibrate(self, labels: Tensor, told: Tensor) -> None:
        """Fit residuals, bins and prior to training labels [N, K], NaN where one is missing, and to the scaled labels
        without gaps [N, K] that training will hand over.
        """
        self._fit_residual(labels)
        binned = self._binnable(labels)
        self.bins.fit(binned)
        if self.joint:
            codes = self._codes(self.bins(binned))
            self.classes, counts = torch.unique(codes[codes >= 0], return_counts=True)
            self.class_prior = counts / counts.sum()
            self.build_bank(self.n_outputs)
        self._set_chance(labels, told)

    def recall(self, labels: Tensor, told: Tensor) -> None:
        """Fit what a checkpoint does not keep, residuals and what chance knows, to the same; bins and classes stay."""
        self._fit_residual(labels)
        self._set_chance(labels, told)

    @property
    def calibrated(self) -> bool:
        """Whether bins and chance have been fitted to stars."""
        return hasattr(self, "priors")

    def _fit_residual(self, labels: Tensor) -> None:
        if self.condition_on == "residual":
            self.residual = ResidualLabels(self.entangled, self.disentangled).fit(labels.numpy())

    def _set_chance(self, labels: Tensor, told: Tensor) -> None:
        """Fit what discriminators can know without the latent, and the loss that this gives them."""
        classes, entangled = self.classify(labels), told[:, self.entangled]
        sees = [not self.joint and i in self.disentangled and self._conditional(i) for i in range(len(self.names))]
        self.priors = BinPriors(self.prior[: len(self.names)], sees).fit(entangled, classes)
        self.chance = self.priors.chance(entangled, classes, self.loss)
        for i in self.regressed:
            known = told[torch.isfinite(labels[:, i]), i]
            mean_error = (known - known.median()).abs().mean()
            self.chance[i] = torch.log(2 * mean_error) + 1  # of the Laplace distribution of all training stars

    def classify(self, labels: Tensor) -> Tensor:
        """Class of each star for each name [N, K] (or [N, 1]); -1 for a missing label or a combination without training
        star.
        """
        bins = self.bins(self._binnable(labels))
        if not self.joint:
            return bins
        codes = self._codes(bins)
        place = torch.searchsorted(self.classes, codes).clamp(max=len(self.classes) - 1)
        return torch.where(self.classes[place] == codes, place, -1)[:, None]

    @property
    def prior(self) -> Tensor:
        """Prior of the classes [D, C]."""
        return self.class_prior[None] if self.joint else self.bins.prior.repeat(self.ensemble, 1)

    @property
    def entropy(self) -> Tensor:
        """Entropy of the classes by name, in nats: the cross-entropy of a discriminator that sees nothing."""
        return torch.special.entr(self.prior).sum(1)[: len(self.names)]

    def views(self, entangled: Tensor, lost: Tensor) -> Tensor:
        """Latent that each discriminator sees [D, B, Z], of two latents [B, Z]: ``lost`` where its label is to be
        lost.
        """
        return torch.where((self.weights > 0)[:, None, None], lost, entangled)

    def ask(self, labels: Tensor, classes: Tensor, weights: Tensor | None = None) -> Questions:
        """What to ask about stars with scaled labels [B, K] without gaps (what follows in further columns is not asked
        for), classes [B, names] (-1: this star does not count) and weights [B, K] (None: all the same).
        """
        classes = self._repeat(classes)
        return Questions(
            labels.index_select(1, self.entangled_columns),
            classes.masked_fill(self.is_regressed, 0),
            self._repeat(labels[:, : len(self.names)]) if self.regressed else labels.new_zeros(0),
            star_shares(classes >= 0, self._repeated_weights(weights)),
        )

    def cross_entropy(self, z: Tensor, questions: Questions) -> Tensor:
        """Loss of each discriminator [D] from latents [B, Z] or :meth:`views` of them [D, B, Z]: its cross-entropy, or
        for a label that is regressed its negative log-likelihood.
        """
        return self._losses(self.bank(self._inputs(z, questions)), questions)

    def _losses(self, logits: Tensor, questions: Questions) -> Tensor:
        losses = cross_entropy(logits, questions.classes, self.loss, questions.shares)
        if not self.regressed:
            return losses
        likelihood = label_likelihood(logits[..., :2], questions.labels, questions.shares)
        return torch.where(self.is_regressed[:, 0], likelihood, losses)

    def by_name(self, per_discriminator: Tensor) -> Tensor:
        """Average [D] over the ensemble: one number per name."""
        return per_discriminator.view(-1, len(self.names)).mean(0)

    def penalty(self, z: Tensor, questions: Questions, factor: float | Tensor = 1.0) -> Tensor:
        r"""The second term of eq. 4, :math:`-\sum_i \lambda_i \mathrm{CE}_i` or what ``objective`` puts in its
        place, with ``factor`` times lambda.
        """
        logits = self.bank(self._inputs(z, questions))
        weighed = -self.weights * self._losses(logits, questions)
        if self.disentangled:
            prior = self.priors(questions.entangled).repeat(self.ensemble, 1, 1)
            prior = prior[..., : logits.shape[-1]]  # a label that is regressed may have had the most bins
            disentangle = adversarial_loss(
                logits, questions.classes, prior, self.objective, self.loss, questions.shares
            )
            weighed = torch.where(self.weights > 0, self.weights * disentangle, weighed)
        return weighed.sum() * factor

    def factor(self, progress: float) -> float | Tensor:
        """Fraction of lambda in force."""
        return self.plateau[0] if self.schedule == "plateau" else lambda_factor(self.schedule, progress, self.warmup)

    def end_epoch(self, loss: float) -> None:
        """Let the ``plateau`` schedule see the autoencoder loss of an epoch."""
        fraction, best, stalled = self.plateau.tolist()
        best, stalled = (loss, 0) if loss < best else (best, stalled + 1)
        if stalled >= self.plateau_patience:
            fraction, stalled = min(1.0, fraction + 1 / self.plateau_steps), 0
        self.plateau.copy_(torch.tensor([fraction, best, stalled]))

    def _regresses(self) -> list[bool]:
        """Whether each discriminator is asked for its label itself."""
        regressed = set(self.regressed)
        return [not self.joint and d % len(self.labels) in regressed for d in range(len(self.n_classes))]

    def _conditional(self, i: int) -> bool:
        """Whether the discriminator of a disentangled label sees the kept ones."""
        kept_are_known = not self.incomplete & {self.labels[k] for k in self.entangled}
        return (
            self.condition_on == "entangled" and bool(self.entangled) and (kept_are_known or i not in self.attributes)
        )

    def _bins(self, bins: Mapping) -> dict:
        """Options of the bins, with the numbers of the entangled labels put in."""
        options = dict(bins)
        entangled = options.pop("entangled_count", None)
        if entangled is None or self.joint:
            return options
        count = options.get("count", 10)
        counts = dict(count) if isinstance(count, Mapping) else dict.fromkeys(self.labels, count)
        return options | {"count": counts | {self.labels[i]: entangled for i in self.entangled}}

    def _inputs(self, z: Tensor, questions: Questions) -> Tensor:
        if self.condition_on != "entangled" or not self.entangled:
            return z
        d = len(self.weights)
        entangled = questions.entangled * self.sees_entangled
        return torch.cat([z.expand(d, -1, -1), entangled.to(z)], dim=-1)

    def _repeat(self, of_names: Tensor) -> Tensor:
        """For each discriminator [D, B] what there is for each name [B, names]."""
        return of_names.T.repeat(self.ensemble, 1)

    def _repeated_weights(self, weights: Tensor | None) -> Tensor | None:
        """Weights of the stars [D, B] of those for each label [B, K]; of a joint discriminator their mean."""
        if weights is None:
            return None
        return weights.mean(1, keepdim=True).T if self.joint else weights.T.repeat(self.ensemble, 1)

    def _binnable(self, labels: Tensor) -> Tensor:
        return labels if self.residual is None else torch.from_numpy(self.residual(labels.numpy())).float()

    def _set_up_joint(self) -> None:
        if self.ensemble > 1 or (self.entangled and self.disentangled):
            raise SpectangleError("adversary.discriminators=joint needs lambdas of one sign and ensemble=1; use multi.")
        self.register_buffer("classes", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("class_prior", torch.full((2,), 0.5))

    def _joint_lambda(self) -> float:
        return max(self.lambdas, key=abs)

    def _codes(self, bins: Tensor) -> Tensor:
        """Number each combination of bins of the labels with a lambda (of all, if none has) [N]; -1 if one is
        missing.
        """
        used = self.entangled + self.disentangled or range(len(self.labels))
        codes = torch.zeros(len(bins), dtype=torch.int64)
        for i in used:
            codes = codes * self.bins.counts[i] + bins[:, i]
        return torch.where((bins[:, list(used)] >= 0).all(1), codes, -1)


def _check_choices(**choices: str) -> None:
    for key, value in choices.items():
        if value not in CHOICES[key]:
            raise SpectangleError(f"adversary.{key} is '{value}'; it must be one of {', '.join(CHOICES[key])}.")
