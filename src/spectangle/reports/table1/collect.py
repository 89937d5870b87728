r"""Table 1 of the paper from run folders: representation x label, with the spread over seeds.

Manteiga et al. 2025, A&A 694, A326, section 3.3. What a run represents is read from its lambdas. "First" and "second"
are those of the table's note, not of section 3.3, which says the opposite; the numbers agree with the note.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectangle.configs.nested import differing, flat
from spectangle.errors import SpectangleError
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import list_runs

__all__ = ["PAPER", "Cell", "Representation", "Table1", "collect", "is_pair", "representation_of"]

STATISTICS = ("mae", "mean", "sigma", "sigma_mad", "sigma_abs", "r2")  # of the downstream regressor
PAPERS_NETWORK = "papers_network"  # the paths of the same from the paper's regressor begin with it
LEAKAGE = ("probe", "control", "reference", "floor", "excess", "disentanglement", "retention")  # of the probes
ATTRIBUTE = ("balanced_accuracy", "chance", "reference_balanced_accuracy")  # of the probes, beside floor and excess
PHYSICAL, CHEMICAL = ("teff", "logg"), ("m_h", "alpha_fe")

# MAE, mean, sigma as printed; its sigma cannot be the standard deviation of the residuals (see spectangle.metrics)
PAPER: dict[tuple[str, str], tuple[float, float, float]] = {
    ("spectra", "teff"): (121, 58, 131),
    ("spectra", "logg"): (0.231, 0.017, 0.277),
    ("spectra", "m_h"): (0.099, -0.007, 0.143),
    ("spectra", "alpha_fe"): (0.039, -0.001, 0.053),
    ("pure", "teff"): (140, 6, 138),
    ("pure", "logg"): (0.282, -0.012, 0.340),
    ("pure", "m_h"): (0.100, -0.016, 0.111),
    ("pure", "alpha_fe"): (0.041, 0.006, 0.043),
    ("first", "teff"): (93, -7, 94),
    ("first", "logg"): (0.141, -0.021, 0.160),
    ("first", "m_h"): (0.183, -0.017, 0.166),
    ("first", "alpha_fe"): (0.051, 0.003, 0.049),
    ("second", "teff"): (512, 17, 361),
    ("second", "logg"): (0.868, -0.027, 0.522),
    ("second", "m_h"): (0.065, 0.002, 0.063),
    ("second", "alpha_fe"): (0.031, -0.004, 0.033),
}


@dataclass(frozen=True)
class Representation:
    """What labels are read from.

    Arguments:
        key: Short and unique: ``spectra``, ``pure``, ``first``, ``second``, or what else was found.
        title: For readers.
        entangled, disentangled: Labels that it is meant to keep and to lose.
    """

    key: str
    title: str
    entangled: tuple[str, ...] = ()
    disentangled: tuple[str, ...] = ()

    @property
    def of_the_paper(self) -> bool:
        return self.key in ("spectra", "pure", "first", "second")

    def of_labels(self, labels: Sequence[str]) -> "Representation":
        """The same without what is no label: attributes, which nothing reads from a latent or a spectrum."""
        kept, lost = (tuple(n for n in names if n in labels) for names in (self.entangled, self.disentangled))
        return replace(self, entangled=kept, disentangled=lost)


LIMIT = Representation("limit", "Physical limit")  # of what can be read at all
SPECTRA = Representation("spectra", "Raw spectra")
PURE = Representation("pure", "Pure latent")
FIRST = Representation("first", "First pair", PHYSICAL, CHEMICAL)
SECOND = Representation("second", "Second pair", CHEMICAL, PHYSICAL)


@dataclass(frozen=True)
class Cell:
    """A number over seeds: mean, standard deviation (None for one seed), number of seeds."""

    mean: float
    spread: float | None
    seeds: int


@dataclass
class Table1:
    """Numbers of each representation by seed, under ``<label>/<statistic>`` (or ``<attribute>/<statistic>``), and
    ``reconstruction``.
    """

    labels: tuple[str, ...]
    units: dict[str, str]
    values: dict[Representation, dict[int, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    attributes: tuple[str, ...] = ()

    @property
    def representations(self) -> list[Representation]:
        """The paper's four in its order, then the others as they were found, and the limit."""
        paper = [one for one in (SPECTRA, PURE, FIRST, SECOND) if one in self.values]
        others = [one for one in self.values if not one.of_the_paper and one != LIMIT]
        return paper + others + [LIMIT] * (LIMIT in self.values)

    def cell(self, representation: Representation, path: str) -> Cell | None:
        """A number over seeds, or None if no seed measured it."""
        found = [numbers[path] for numbers in self.values.get(representation, {}).values() if path in numbers]
        if not found:
            return None
        return Cell(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))

    def mean(self, representation: Representation, path: str) -> float | None:
        cell = self.cell(representation, path)
        return None if cell is None else cell.mean

    def ratio(self, representation: Representation, reference: Representation, path: str) -> float | None:
        """A mean over that of a reference."""
        a, b = self.mean(representation, path), self.mean(reference, path)
        return None if a is None or not b else a / b

    def add(self, representation: Representation, seed: int, numbers: Mapping[str, float]) -> None:
        self.values.setdefault(representation, {}).setdefault(seed, {}).update(numbers)

    def role(self, representation: Representation, label: str) -> str:
        """``kept``, ``lost``, or nothing."""
        return "kept" if label in representation.entangled else "lost" if label in representation.disentangled else ""


def collect(folder: str | Path) -> tuple[Table1, dict[Representation, list[Run]]]:
    """Read Table 1 and the runs behind it from the finished runs below a folder.

    Runs of one representation are taken for seeds of one experiment; a note says so where they differ in anything else.

    Raises:
        SpectangleError: There is no finished run, or the runs do not have the same labels, survey and test stars.
    """
    runs = list(list_runs(folder))
    finished = [run for run in runs if run.finished]
    if not finished:
        raise SpectangleError(
            f"{folder} has no finished run ({len(runs)} unfinished); train the three models: spectangle train "
            "sweep=table1."
        )
    labels = _labels(finished[0])
    attributes = dict.fromkeys(
        name for run in finished for name in (run.config.get("labels") or {}).get("attributes") or ()
    )
    table = Table1(labels, finished[0].units, attributes=tuple(attributes))
    if len(finished) < len(runs):
        table.notes.append(f"{len(runs) - len(finished)} of {len(runs)} runs are not finished and left out.")
    by_representation: dict[Representation, list[Run]] = {}
    for run in finished:
        if _labels(run) != labels:
            raise SpectangleError(
                f"{run.path} has the labels {', '.join(_labels(run))}, {finished[0].path} has "
                f"{', '.join(labels)}: not one table."
            )
        by_representation.setdefault(representation_of(run.config), []).append(run)
    _same_stars(finished)
    for representation, members in by_representation.items():
        _add_runs(table, representation, members)
    return table, by_representation


def representation_of(config: Mapping[str, Any]) -> Representation:
    """What the latent of a run is asked to be, from its lambdas and its decoder."""
    lambdas = {name: float(value or 0) for name, value in config["lambdas"].items()}
    entangled = tuple(name for name, value in lambdas.items() if value < 0)
    disentangled = tuple(name for name, value in lambdas.items() if value > 0)
    decoder = float(config.get("model", {}).get("reconstruction_weight", 1.0)) > 0
    if decoder:
        for known in (PURE, FIRST, SECOND):
            if (set(entangled), set(disentangled)) == (set(known.entangled), set(known.disentangled)):
                return known
    parts = [f"keep {', '.join(entangled)}"] * bool(entangled) + [f"lose {', '.join(disentangled)}"] * bool(
        disentangled
    )
    if not decoder:
        title = (
            "Supervised encoder" if len(entangled) == len(lambdas) else f"No decoder: {'; '.join(parts) or 'untrained'}"
        )
    else:
        words = "; ".join(parts)
        title = (
            "All labels kept"
            if len(entangled) == len(lambdas)
            else ("All labels lost" if len(disentangled) == len(lambdas) else words[:1].upper() + words[1:])
        )
    return Representation(
        f"{'' if decoder else 'no_decoder_'}keep_{'_'.join(entangled)}_lose_{'_'.join(disentangled)}",
        title,
        entangled,
        disentangled,
    )


def is_pair(one: Representation) -> bool:
    """Whether it keeps some labels and loses others, with a decoder: what the paper calls a pair."""
    return bool(one.entangled and one.disentangled) and not one.key.startswith("no_decoder_")


def numbers_of(
    metrics: Mapping[str, float], labels: Iterable[str], source: str = "latent", attributes: Iterable[str] = ()
) -> dict[str, float]:
    """A run's metrics under the table's paths; ``source`` is ``latent``, ``spectra`` or ``limit``."""
    found: dict[str, float | None] = {}
    scored = source if source == "limit" else f"test/{source}"
    for label in labels:
        found |= {f"{label}/{name}": metrics.get(f"{scored}/{label}/{name}") for name in STATISTICS}
        if source == "limit":
            continue
        papers = {
            f"{label}/{PAPERS_NETWORK}/{name}": metrics.get(f"paper/{source}/{label}/{name}") for name in STATISTICS
        }
        found |= papers
        found[f"{label}/reference"] = metrics.get(f"reference/{label}/r2")
        if source == "spectra":
            found[f"{label}/probe"] = metrics.get(f"reference/{label}/r2")
            continue
        found |= {
            f"{label}/probe": metrics.get(f"probe/{label}/r2"),
            f"{label}/control": metrics.get(f"probe/{label}/control"),
            f"{label}/stars": metrics.get(f"probe/{label}/stars"),
        }
        found |= {
            f"{label}/{name}": metrics.get(f"{name}/{label}")
            for name in ("floor", "excess", "disentanglement", "retention")
        }
    for name in attributes:
        found |= {
            f"{name}/{word}": metrics.get(f"probe/{name}/{word}") for word in ("balanced_accuracy", "chance", "stars")
        }
        found[f"{name}/reference_balanced_accuracy"] = metrics.get(f"reference/{name}/balanced_accuracy")
        found |= {f"{name}/{word}": metrics.get(f"{word}/{name}") for word in ("floor", "excess")}
    if source == "latent":
        found["reconstruction"] = metrics.get("val/reconstruction")
    return {path: float(value) for path, value in found.items() if value is not None}


def _add_runs(table: Table1, representation: Representation, runs: Sequence[Run]) -> None:
    seeds = [run.config.get("seed", 0) for run in runs]
    if differing := _differing([run.written_config for run in runs]):
        table.notes.append(
            f"The {len(runs)} runs of {representation.title} differ in more than the seed ({', '.join(differing)}); "
            "their mean and spread mix these choices. Give a folder with one experiment per representation."
        )
        seeds = list(range(len(runs)))
    for seed, run in zip(seeds, runs, strict=True):
        table.add(SPECTRA, run.config.get("seed", 0), numbers_of(run.metrics, table.labels, "spectra"))
        if limit := numbers_of(run.metrics, table.labels, "limit"):
            table.add(LIMIT, run.config.get("seed", 0), limit)
        table.add(representation, seed, numbers_of(run.metrics, table.labels, attributes=table.attributes))


def _same_stars(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers are of other test stars; attributes may differ, they move no star."""
    first, *others = runs
    for run in others:
        if found := differing([_deciding(first), _deciding(run)]):
            raise SpectangleError(
                f"{run.path} and {first.path} were not scored on the same test stars (different: {', '.join(found)}); "
                "make one table of each."
            )


def _deciding(run: Run) -> dict[str, Any]:
    """What decides which stars are test stars, as :class:`~spectangle.data.module.SpectraDataModule` takes it."""
    data = run.config.get("data", {})
    folds, require = data.get("folds"), data.get("require", "all")  # of runs made when a star without a label was left
    known = {"survey": run.manifest.get("survey", {}).get("content_hash"), "data.split_seed": data.get("split_seed")}
    known |= {"data.n_stars": data.get("n_stars"), "data.max_masked_fraction": data.get("max_masked_fraction", 0.2)}
    known |= {"data.folds": folds, "data.fold": data.get("fold", 0) if folds else None}
    known |= {"data.test_fraction": None if folds else data.get("test_fraction", 0.2)}
    required = _labels(run) if require == "all" else [require] if isinstance(require, str) else require or []
    return known | {"labels.require": sorted(required)}


def _labels(run: Run) -> tuple[str, ...]:
    """The labels that were read from the latent, in the order of the survey."""
    found = {path.split("/")[2] for path in run.metrics if path.startswith("test/latent/")}
    return (*(name for name in run.units if name in found), *sorted(found - set(run.units)))


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choices that differ between configs, the seed and where things lie apart."""
    apart = ("seed", "threads", "logger", "hydra")
    return sorted(
        differing([flat({key: value for key, value in config.items() if key not in apart}) for config in configs])
    )
