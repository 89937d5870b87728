"""Losses: what the discriminators minimise, what the autoencoder is asked for, how lambda grows and how learning rates
fall.

Shapes: B batch, D discriminators, C bins.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from spectangle.errors import SpectangleError

__all__ = [
    "OBJECTIVES",
    "SCHEDULES",
    "adversarial_loss",
    "at_least_single",
    "cross_entropy",
    "decay_factor",
    "label_likelihood",
    "lambda_factor",
    "star_shares",
    "training_progress",
]

OBJECTIVES = ("neg_ce", "capped", "uniform", "flipped")
SCHEDULES = ("constant", "linear", "dann", "plateau")
FEW_BINS = 48  # beside one another, before they fill the vector units of a CPU


def at_least_single(values: Tensor) -> Tensor:
    """Values in single precision, or in double where they are: sums and logarithms in bfloat16 say little."""
    return values if values.dtype == torch.float64 else values.float()


def cross_entropy(logits: Tensor, bins: Tensor, kind: str = "categorical", shares: Tensor | None = None) -> Tensor:
    r"""Cross-entropy of each discriminator, averaged over the stars of the batch that have its label [D], in nats.

    ``categorical``: :math:`-\log p(b)`, as the authors' code does. ``binary``: the paper's eq. 2 as printed, the sum
    over the bins of :math:`-t \log p - (1 - t) \log(1 - p)` with one-hot t and the softmax p.

    Arguments:
        logits: [D, B, C].
        bins: True bins [D, B] int64; a negative bin (a missing label, or a combination that no training star has) does
            not count.
        kind: ``categorical`` or ``binary``.
        shares: Of the stars in the average [D, B], see :func:`star_shares`; None: all that count have the same.
    """
    log_p = _log_probabilities(logits)
    chosen = bins.clamp(min=0).unsqueeze(-2)
    loss = -log_p.gather(-2, chosen).squeeze(-2)
    if kind == "binary":
        others = torch.log1p(-log_p.exp().clamp(max=1 - 1e-7)).scatter(-2, chosen, 0.0)
        loss = loss - others.sum(-2)
    elif kind != "categorical":
        raise SpectangleError(f"adversary.loss is '{kind}'; it must be categorical or binary.")
    return _averaged(loss, bins, shares)


def _averaged(loss: Tensor, bins: Tensor, shares: Tensor | None) -> Tensor:
    """Mean [D] of the losses of stars [D, B], by their shares, or of all that have a bin."""
    return (loss * (star_shares(bins >= 0) if shares is None else shares)).sum(-1)


def star_shares(known: Tensor, weights: Tensor | None = None) -> Tensor:
    """Share of each star in an average [D, B]: of those of which something is ``known`` [D, B], by their weights [D, B]
    (None: all alike). They add up to 1, or to 0 where nothing is known of any.
    """
    weights = known.to(torch.get_default_dtype()) if weights is None else weights * known
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def _log_probabilities(logits: Tensor) -> Tensor:
    """Logarithm of the softmax [D, C, B] of logits [D, B, C]. A few bins side by side leave the vector units of a CPU
    empty, which stars fill; many do not.
    """
    logits = at_least_single(logits)
    if logits.shape[-1] <= FEW_BINS:
        return F.log_softmax(logits.transpose(-1, -2), dim=-2)
    return F.log_softmax(logits, dim=-1).transpose(-1, -2)


def adversarial_loss(
    logits: Tensor,
    bins: Tensor,
    prior: Tensor,
    objective: str = "neg_ce",
    kind: str = "categorical",
    shares: Tensor | None = None,
) -> Tensor:
    r"""What the encoder minimises to disentangle, one number per discriminator [D]; times :math:`\lambda_i > 0` in eq.
    4.

    With :math:`\mathrm{CE}` the discriminator's cross-entropy and :math:`\pi` what it can know without the latent (the
    prior of the bins, or their share among stars with the same kept labels, if it sees these):

    * ``neg_ce``: :math:`-\mathrm{CE}`, the paper's eq. 4. Unbounded below: past chance the encoder gains by making the
      discriminator confidently wrong.
    * ``capped``: :math:`-\min(\mathrm{CE}, \mathrm{CE}(\pi))`, no gain past chance.
    * ``uniform``: :math:`-\sum_c \pi_c \log p_c`, drives the output to :math:`\pi`.
    * ``flipped``: the cross-entropy of a wrong bin drawn from :math:`\pi` (Fader networks, Lample et al. 2018,
      arXiv:1706.00409).

    Arguments:
        logits: [D, B, C], through discriminators that do not learn.
        bins: True bins [D, B]; stars with a negative one do not count.
        prior: :math:`\pi` [D, C], or of each star [D, B, C].
        objective: One of :data:`OBJECTIVES`.
        kind: Kind of cross-entropy, see :func:`cross_entropy`; the cap of ``capped`` is of the same kind.
        shares: Of the stars in the average [D, B], as in :func:`cross_entropy`.
    """
    prior = (prior[:, None] if prior.dim() == 2 else prior).expand(*bins.shape, -1)
    if objective == "neg_ce":
        return -cross_entropy(logits, bins, kind, shares)
    if objective == "capped":
        return -torch.minimum(
            cross_entropy(logits, bins, kind, shares), cross_entropy(prior.clamp(min=1e-12).log(), bins, kind, shares)
        )
    if objective == "uniform":
        prior = prior.transpose(-1, -2)
        log_p = _log_probabilities(logits).masked_fill(prior == 0, 0.0)
        others = (
            torch.log1p(-log_p.exp().clamp(max=1 - 1e-7)).masked_fill(prior == 0, 0.0) * (1 - prior)
            if kind == "binary"
            else 0.0
        )
        loss = -(prior * log_p + others).sum(-2)
        return _averaged(loss, bins, shares)
    if objective == "flipped":
        return cross_entropy(logits, torch.where(bins >= 0, _wrong_bins(bins, prior), -1), kind, shares)
    raise SpectangleError(f"adversary.objective is '{objective}'; it must be one of {', '.join(OBJECTIVES)}.")


def label_likelihood(outputs: Tensor, labels: Tensor, shares: Tensor | None = None) -> Tensor:
    r"""Negative log-likelihood in nats of labels [D, B] under a Laplace distribution whose median and log scale are
    outputs [D, B, 2]; its mean [D] over the stars by their ``shares`` in it [D, B] (see :func:`star_shares`).

    :math:`\log 2s + |y - m| / s`: an error weighs as much as it is sure of itself, and catalogue outliers weigh little.
    The scale stays above 0.05 standard deviations of the label, so that few stars cannot be learnt by heart without
    end.
    """
    log_scale = at_least_single(outputs[..., 1]).clamp(min=math.log(0.05))
    error = F.smooth_l1_loss(at_least_single(outputs[..., 0]), at_least_single(labels), beta=0.02, reduction="none")
    loss = math.log(2) + log_scale + error * torch.exp(-log_scale)
    return loss.mean(-1) if shares is None else (loss * shares).sum(-1)


def _wrong_bins(bins: Tensor, prior: Tensor) -> Tensor:
    """Draw a bin other than the true one [D, B], with the odds of the prior [D, B, C]."""
    odds = prior.scatter(-1, bins.clamp(min=0).unsqueeze(-1), 0.0)
    odds = odds + (odds.sum(-1, keepdim=True) == 0)  # a label with one occupied bin: any
    return torch.multinomial(odds.flatten(0, 1), 1).view_as(bins)


def lambda_factor(schedule: str, progress: float, warmup: float = 0.3) -> float:
    r"""Fraction of lambda in force at a progress from 0 (start) to 1 (end of training).

    ``constant``: 1. ``linear``: :math:`\min(1, p / w)`. ``dann``: :math:`2 / (1 + e^{-10p}) - 1` (Ganin et al. 2016,
    arXiv:1505.07818). ``plateau`` starts at 0 and is raised by the model itself when the autoencoder loss stalls.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return min(1.0, progress / warmup) if warmup > 0 else 1.0
    if schedule == "dann":
        return 2 / (1 + math.exp(-10 * progress)) - 1
    if schedule == "plateau":
        return 0.0
    raise SpectangleError(f"adversary.schedule is '{schedule}'; it must be one of {', '.join(SCHEDULES)}.")


def training_progress(epoch: int, batch: int, n_batches: int, n_epochs: int) -> float:
    """From 0 at the start of the training to 1 at its end, at a batch of an epoch, both counted from 0."""
    return (epoch + batch / max(1, n_batches)) / max(1, n_epochs)


def decay_factor(end: float, progress: float) -> float:
    r"""Fraction of a learning rate at a progress p from 0 to 1, a cosine from 1 to ``end`` :math:`e`:
    :math:`e + (1 - e) (1 + \cos \pi p) / 2`."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))
