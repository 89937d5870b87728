"""The physical limit of the embedded survey, what the linear emulator in it costs, and how near runs come.

    python benchmarks/physical_limit.py --runs runs/table1

Prints for all test stars the MAE of the best possible reader against the catalogue, and against the truth, and what the
catalogue's errors alone would give. For some stars the posterior is computed without a linear emulator too, by
importance sampling: labels are drawn from the linear posterior, widened, and weighed by prior and likelihood of the
emulator's spectra at these labels. With --runs, the MAE of a folder's finished runs over the limit.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.metrics import number
from spectangle.reports.table1.collect import collect
from spectangle.synthetic import LABELS
from spectangle.synthetic.limit import (
    ObservedStars,
    likelihood,
    observed_stars,
    physical_limit,
    posterior,
    star_likelihood,
    star_nuisances,
)
from spectangle.synthetic.population import label_mixture

WIDER = 1.5  # than the linear posterior: what labels are drawn from
MIXTURE = label_mixture()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=64305, help="of the survey")
    parser.add_argument("--exact", type=int, default=300, help="test stars that are read without a linear emulator too")
    parser.add_argument("--draws", type=int, default=2000, help="labels drawn for each of these")
    parser.add_argument("--runs", type=Path, help="folder of finished runs on this survey")
    options = parser.parse_args()
    data = EmbeddedSurveyDataModule(n_stars=options.stars)
    data.setup()
    start = time.perf_counter()
    read = physical_limit(str(data.path), data.test.rows, LABELS)
    seconds = time.perf_counter() - start
    assert read is not None
    catalogue, truth = data.test.labels.numpy(), data.test.true_labels
    rows = {
        "limit": read - catalogue,
        "the catalogue's own errors alone": truth - catalogue,
        "limit, against the truth": read - truth,
    }
    limits = np.abs(rows["limit"]).mean(axis=0)
    show(f"MAE of {len(read):,} test stars ({seconds:.1f} s)", rows, list(data.units.values()))
    some = np.sort(np.random.default_rng(1).permutation(len(data.test))[: options.exact])
    exact, effective = read_exactly(observed_stars(str(data.path), data.test.rows[some]), options.draws)
    pairs = {"limit": (read - catalogue)[some], "the same, exactly": exact - catalogue[some]}
    title = (
        f"MAE of {len(some)} of them; {np.median(effective):.0f} effective draws a star (fewest {effective.min():.0f})"
    )
    show(title, pairs, list(data.units.values()))
    if options.runs:
        show_runs(options.runs, limits)


def show(title: str, rows: dict[str, np.ndarray], units: list[str]) -> None:
    """Print mean and standard error of absolute residuals [N, K]."""
    table = Table("", *(f"{name} [{unit}]" for name, unit in zip(LABELS, units, strict=True)), title=title)
    for name, residual in rows.items():
        sizes = np.abs(residual)
        cells = zip(sizes.mean(0), sizes.std(0) / np.sqrt(len(sizes)), units, strict=True)
        table.add_row(name, *(f"{number(mean, unit)} ± {error:.2g}" for mean, error, unit in cells))
    Console(width=130).print(table)


def show_runs(folder: Path, limits: np.ndarray) -> None:
    """Print the MAE of each representation over the limit, mean over seeds."""
    table, found = Table("MAE over the limit", *LABELS), collect(folder)[0]
    for one in found.representations:
        ratios = [found.mean(one, f"{name}/mae") for name in LABELS]
        cells = (f"{mae / best:.2f}" for mae, best in zip(ratios, limits, strict=True) if mae is not None)
        table.add_row(one.title, *cells)
    Console(width=130).print(table)


def read_exactly(stars: ObservedStars, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Posterior medians [N, K] with the emulator as it is, and the effective number of draws [N]."""
    rng, medians, effective = np.random.default_rng(2), [], []
    for i in range(len(stars)):
        labels, weights = weighed_draws(stars[i : i + 1], draws, rng)
        order = np.argsort(labels, axis=0)
        half = [np.searchsorted(np.cumsum(weights[order[:, k]]), 0.5) for k in range(len(LABELS))]
        medians.append([labels[order[half[k], k], k] for k in range(len(LABELS))])
        effective.append(1 / np.square(weights).sum())
    return np.array(medians), np.array(effective)


def weighed_draws(star: ObservedStars, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n, K] drawn for one star, and their weights [n] under its posterior."""
    scaled = (star.labels - MIXTURE.shift) / MIXTURE.scale
    shares, means, covariances = (each[0] for each in posterior(star_likelihood(star), scaled, MIXTURE))
    means, covariances = means + scaled, covariances * WIDER**2
    component = rng.choice(len(shares), draws, p=shares)
    noise = rng.standard_normal((draws, len(LABELS)))
    drawn = means[component] + np.einsum("nkl,nl->nk", np.linalg.cholesky(covariances)[component], noise)
    labels = MIXTURE.shift + MIXTURE.scale * drawn
    inside = ((labels > MIXTURE.limits[:, 0]) & (labels < MIXTURE.limits[:, 1])).all(axis=1)
    labels, drawn = labels[inside], drawn[inside]
    logarithm = log_likelihood(star, labels) + log_mixture(drawn, MIXTURE.weights, MIXTURE.means, MIXTURE.covariances)
    logarithm -= log_mixture(drawn, shares, means, covariances)
    weights = np.exp(logarithm - logarithm.max())
    return labels, weights / weights.sum()


def log_likelihood(star: ObservedStars, labels: np.ndarray) -> np.ndarray:
    """Of the spectrum of one star for labels [n, K], nuisances marginalised: [n]."""

    def repeated(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, len(labels), axis=0)

    flux, error, vbroad, velocity = map(repeated, (star.flux, star.flux_error, star.vbroad, star.velocity))
    seen = ObservedStars(flux, error, labels, vbroad, velocity)
    nuisance, residual = star_nuisances(seen)
    told = likelihood(np.zeros((*residual.shape, 0)), nuisance, residual, seen.flux_error)
    known = np.isfinite(residual)
    whitened = np.where(known, 1 / seen.flux_error, 0)[:, :, None] * nuisance
    prior = np.swapaxes(whitened, 1, 2) @ whitened + np.eye(nuisance.shape[2])
    return -0.5 * (told.misfit * known.sum(axis=1) + np.linalg.slogdet(prior)[1])


def log_mixture(x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Of a mixture of Gaussians at x [n, K], up to a constant: [n]."""
    away = x[:, None] - means
    square = np.einsum("nmk,mkl,nml->nm", away, np.linalg.inv(covariances), away)
    with np.errstate(divide="ignore"):  # components without weight
        return np.logaddexp.reduce(np.log(weights) - 0.5 * (square + np.linalg.slogdet(covariances)[1]), axis=1)


if __name__ == "__main__":
    main()
