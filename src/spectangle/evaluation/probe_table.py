"""What probes found, as a table, and as sentences where adversary and probes disagree."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["attribute_table", "disagreements", "probe_table"]


def disagreements(
    metrics: Mapping[str, float], gains: Mapping[str, float], model: DisentanglingAutoencoder
) -> list[str]:
    """Sentences for disentangled labels that the adversary takes for gone and a probe still reads."""
    return [
        f"warning: the discriminator of {label} is at chance ({gains[label]:+.2f} nats), but probes of stars that "
        "the encoder never saw still read "
        f"it: R2 {metrics[f'probe/{label}/r2']:.2f}, of which {metrics[f'excess/{label}']:.2f} beyond the "
        "population. It is hidden, not removed: "
        "raise adversary.discriminator_steps, its lambda or model.latent_rate."
        for label in (model.targets[i] for i in model.adversary.disentangled)
        if label in model.labels and gains[label] < 0.1 and metrics.get(f"excess/{label}", 0.0) > 0.1
    ]


def probe_table(metrics: Mapping[str, float], labels: Sequence[str], gains: Mapping[str, float]) -> Table:
    """What the latent knows of each label: adversary's view, probes' view, floor and excess."""
    title = "What the latent knows (R2 of all probes together, on test stars that the encoder never saw)"
    bound = "excess\nat most" if metrics.get("excess_is_upper_bound") else "excess"
    differ = len({metrics.get(f"probe/{label}/stars") for label in labels}) > 1
    views = ["adversary\n[nats]", "probes\nR2", "95 %", "seen\nstars", "permuted\nlabels", "raw\nspectra"]
    table = _empty_table(title, "label", [*views, "lost", "floor", bound, "95 % ", *(["stars"] if differ else [])])
    for label in labels:
        path = f"probe/{label}"
        keys = [f"{path}/seen", f"{path}/control", f"reference/{label}/r2", f"disentanglement/{label}"]
        table.add_row(
            label,
            f"{gains[label]:+.2f}",
            _cell(metrics, f"{path}/r2") or "-",
            _interval(metrics, f"{path}/r2_low", f"{path}/r2_high"),
            *(_cell(metrics, key) for key in (*keys, f"floor/{label}", f"excess/{label}")),
            _interval(metrics, f"excess_low/{label}", f"excess_high/{label}"),
            *([_stars(metrics, label)] if differ else []),
        )
    return table


def _empty_table(title: str, first: str, headings: Sequence[str]) -> Table:
    """A table without rows; its columns hold numbers, all but the first."""
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in headings:
        table.add_column(escape(name), justify="right", no_wrap=True)
    return table


def _cell(metrics: Mapping[str, float], key: str) -> str:
    return "" if (value := metrics.get(key)) is None else f"{value:.3f}"


def _interval(metrics: Mapping[str, float], low: str, high: str) -> str:
    return f"{metrics[low]:.3f}..{metrics[high]:.3f}" if low in metrics else ""


def _stars(metrics: Mapping[str, float], label: str) -> str:
    """How many stars the probes' R2 rests on; in brackets those of the excess, which need all kept labels too."""
    stars, both = metrics.get(f"probe/{label}/stars", 0), metrics.get(f"excess_stars/{label}")
    return f"{stars:,.0f}" + (f" ({both:,.0f})" if both is not None and both != stars else "")


def attribute_table(metrics: Mapping[str, float], attributes: Sequence[str], gains: Mapping[str, float]) -> Table:
    """What the latent knows of each attribute: balanced accuracy against chance and raw spectra, floor and excess."""
    title = "What the latent knows of attributes (balanced accuracy, test stars)"
    headings = ["adversary\n[nats]", "probes", "95 %", "chance", "raw\nspectra", "excess\nR2", "95 % "]
    table = _empty_table(title, "attribute", headings)
    for name in attributes:
        path = f"probe/{name}"
        table.add_row(
            name,
            f"{gains[name]:+.2f}",
            _cell(metrics, f"{path}/balanced_accuracy"),
            _interval(metrics, f"{path}/balanced_accuracy_low", f"{path}/balanced_accuracy_high"),
            _cell(metrics, f"{path}/chance"),
            _cell(metrics, f"reference/{name}/balanced_accuracy"),
            _cell(metrics, f"excess/{name}"),
            _interval(metrics, f"excess_low/{name}", f"excess_high/{name}"),
        )
    return table
