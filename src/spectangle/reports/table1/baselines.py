r"""Baselines of Table 1: other ways to keep some labels and lose others, judged as the latents are.

* ``bottleneck``: z = the kept labels as a regressor on the spectra predicts them. Nothing else can leak but what these
  labels imply, so it is the best that removal can do; it reconstructs nothing.
* ``pca``: the first 25 principal components of the spectra: unsupervised, linear.
* ``pls``: the first 25 components of partial least squares: linear, supervised by all labels.
* ``leace``: the pure latent with the disentangled labels erased linearly (Belrose et al. 2023, arXiv:2306.03819): no
  linear probe finds more than the mean. A non-linear one does.

The fourth, an encoder with the same supervision and no decoder, is a run of its own:
``spectangle train lambdas=entangle_all model.reconstruction_weight=0``.

Shapes: N stars, P pixels, Z latent, D dropped labels.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spectangle.caching import cache_folder, cache_key, cached
from spectangle.data.load import load_stars
from spectangle.devices import chosen_device
from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.evaluation.probes import Probes
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.model.load import load_autoencoder
from spectangle.model.projection import Projection
from spectangle.processes import free_memory_gb, in_processes
from spectangle.reports.table1.collect import FIRST, PURE, SECOND, Representation, Table1, is_pair, numbers_of
from spectangle.reports.table1.layout import WORDS
from spectangle.runs.folder import Run
from spectangle.threads import available_cores, use_threads

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.data.stars import Stars

__all__ = [
    "Baseline",
    "add_baselines",
    "baselines_of",
    "leace",
    "pls_components",
    "principal_components",
    "read_by_baseline",
    "score",
    "supervised_bottleneck",
]

log = logging.getLogger(__name__)

MOST_WORKERS, MEMORY_GB = 8, 2.0  # processes, and what each needs for its stars and libraries

Embed = Callable[[np.ndarray], np.ndarray]


def baselines_of(pairs: Iterable[Representation]) -> dict[str, Representation]:
    """The baselines by key: PCA and PLS, then what keeps and what loses the labels of each pair, if it has such
    labels.
    """
    found = [Representation("pca", "PCA, 25 components"), Representation("pls", "PLS, 25 components")]
    titles = {"bottleneck": "Supervised bottleneck: ", "leace": "LEACE: pure latent without "}
    for kind, title in titles.items():
        for one in pairs:
            names = one.entangled if kind == "bottleneck" else one.disentangled
            if not names:
                continue
            words = title + ", ".join(WORDS.get(name) or name for name in names)
            found.append(Representation(f"{kind}_{one.key}", words, one.entangled, one.disentangled))
    return {one.key: one for one in found}


@dataclass
class Baseline:
    """A map to a representation, in the clothes of a model, so that regressor and probes take it for one.

    Arguments:
        map: Spectra [N, P], or what ``read`` gives, to representation [N, Z].
        labels: Names of all labels.
        representation: What it is meant to keep and to lose.
        read: What of the stars is mapped; default: their spectra.
    """

    map: Embed
    labels: Sequence[str]
    representation: Representation
    read: "Callable[[Stars], np.ndarray] | None" = None

    @property
    def targets(self) -> Sequence[str]:
        """The labels: a baseline has no attributes."""
        return self.labels

    @property
    def adversary(self) -> SimpleNamespace:
        """Places of the kept and of the dropped labels."""
        places = {name: i for i, name in enumerate(self.labels)}
        return SimpleNamespace(
            entangled=[places[name] for name in self.representation.entangled],
            disentangled=[places[name] for name in self.representation.disentangled],
        )

    def embed_stars(self, stars: "Stars") -> np.ndarray:
        """Representation [N, Z] of stars."""
        return self.map(stars.flux.numpy() if self.read is None else self.read(stars))

    def embed_draws(self, stars: "Stars", count: int) -> list[np.ndarray]:
        """The same: it is deterministic, one draw says all."""
        return [self.embed_stars(stars)]


def pls_components(flux: np.ndarray, labels: np.ndarray, n: int = 25) -> Embed:
    """Fit the first components of partial least squares of training spectra [N, P] on their labels [N, K], of the stars
    that have all.
    """
    known = np.isfinite(labels).all(axis=1)
    labels = (labels[known] - labels[known].mean(0)) / labels[known].std(0)
    projection = Projection(flux.shape[1], n, 0)
    projection.fit(torch.from_numpy(flux[known]), torch.from_numpy(labels))
    return lambda new: projection(torch.from_numpy(new)).numpy()


def principal_components(flux: np.ndarray, n: int = 25) -> Embed:
    """Fit the first principal components of training spectra [N, P]."""
    from sklearn.decomposition import PCA

    return PCA(min(n, *flux.shape), random_state=0).fit(flux).transform


def supervised_bottleneck(regressor: Any, columns: Sequence[int]) -> Embed:
    """What a fitted regressor on spectra predicts for some labels (their columns)."""
    return lambda flux: regressor.predict(flux)[:, list(columns)]


def leace(latent: np.ndarray, disentangled: np.ndarray) -> Embed:
    """What takes labels [N, D] of training stars out of their latents [N, Z], and of new ones, for every linear reader.

    Raises:
        SpectangleError: The package concept-erasure is not installed.
    """
    try:
        from concept_erasure import LeaceEraser
    except ImportError:
        raise SpectangleError(
            "The LEACE baseline needs the package concept-erasure: pip install 'spectangle[erasure]'."
        ) from None
    known = np.isfinite(disentangled).all(axis=1)
    latent, disentangled = latent[known], disentangled[known]
    eraser = LeaceEraser.fit(torch.from_numpy(latent).double(), torch.from_numpy(np.asarray(disentangled)).double())
    return lambda new: eraser(torch.from_numpy(new).double()).numpy().astype(np.float32)


def score(
    baseline: Baseline,
    data: "SpectraDataModule",
    regressor: Any,
    probes: Mapping[str, Any],
    cache: str | Path | None,
    seed: int,
    paper: Any = None,
) -> dict[str, float]:
    """Fit regressor, that of the paper and probes on training stars, score test stars: the metric paths of a run."""
    downstream = DownstreamRegressor(regressor, cache=None if cache is None else str(cache), paper=paper)
    probing = Probes(**probes, cache=None if cache is None else str(cache), seed=seed)
    found = downstream.score(baseline, data)  # pyright: ignore
    return found | probing.score(baseline, data, data.test, spare=data.validation, regressor=downstream.fitted)  # pyright: ignore


def add_baselines(
    table: Table1,
    runs: Mapping[Representation, Sequence[Run]],
    cache: str | Path,
    workers: int | None = None,
    survey: str | Path | None = None,
) -> None:
    """Add the baselines to a table, for each seed that has a pure latent; what was computed once is read from the
    cache. They are those of the paper's pairs, or where a survey has other labels, of the pairs among the runs.

    Arguments:
        table: The table.
        runs: Of each representation, one for each seed.
        cache: Folder of what was computed.
        workers: Processes, each with a copy of the stars; None = one for each core, up to eight and as memory
            allows, or one where there is a GPU.
        survey: Where the survey file lies now, if it was moved.
    """
    if PURE not in runs:
        raise SpectangleError(
            "The baselines need the pure latent (lambdas=none), and the sweep has no finished run of it."
        )
    of_the_paper = set(table.labels) == {*FIRST.entangled, *FIRST.disentangled}
    pairs = [FIRST, SECOND] if of_the_paper else [one.of_labels(table.labels) for one in runs if is_pair(one)]
    fitted = [_Fitted(run, cache, survey) for run in runs[PURE]]
    wanted = [(i, one) for i in range(len(fitted)) for one in baselines_of(pairs).values()]
    missing = [(i, one) for i, one in wanted if not fitted[i].has(one)]
    computed = _compute(fitted, missing, workers or _most_workers())
    for i, one in wanted:
        metrics = computed[i, one] if (i, one) in computed else fitted[i].metrics(one)
        if isinstance(metrics, str):
            table.notes.append(f"{one.title} is not in the table: {metrics}")
        else:
            table.add(one, fitted[i].seed, numbers_of(metrics, table.labels, attributes=table.attributes))
    if not any(one.key.startswith("no_decoder") for one in runs):
        table.notes.append(
            "The supervised encoder is not in the table; it is a run of its own: "
            "spectangle train lambdas=entangle_all model.reconstruction_weight=0 hydra.run.dir=SWEEP/supervised."
        )


def read_by_baseline(
    run: Run, key: str, rows: np.ndarray, survey: str | Path | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """By the title of a baseline that the spectra alone make, ``pca`` or ``pls``: labels [n] by name of some test stars
    of a pure run, as its regressor reads them.
    """
    fitted, representation = _Fitted(run, cache_folder(), survey), baselines_of([])[key]
    baseline = fitted.baseline(representation)
    downstream = DownstreamRegressor(fitted.parts["regressor"])
    downstream.score(baseline, fitted.data)  # pyright: ignore
    read = downstream.fitted.predict(baseline.embed_stars(fitted.data.test)[rows])
    return {representation.title: {name: read[:, i] for i, name in enumerate(fitted.data.labels)}}


class _Fitted:
    """The baselines of one pure run: its stars, regressor and probes, made only when something is not cached yet."""

    def __init__(self, run: Run, cache: str | Path, survey: str | Path | None = None):
        self.run, self.cache, self.config, self.survey = run, Path(cache), _resolved(run), survey
        self.seed = self.config["seed"]
        self._data: SpectraDataModule | None = None

    @property
    def data(self) -> "SpectraDataModule":
        if self._data is None:
            self._data = load_stars(self.run, self.survey)
        return self._data

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Regressor, paper's regressor and probes of the run, not fitted: to be made in the process of the command,
        where Hydra knows what a config may call.
        """
        import hydra

        return {name: hydra.utils.instantiate(self.config[name]) for name in ("regressor", "paper", "probes")}

    def forget_stars(self) -> None:
        """Give their memory back; they are read again if they are wanted."""
        self._data = None

    def path(self, key: str) -> Path:
        """Where the metrics of a baseline are cached."""
        model = self.run.checkpoint_hash if key.startswith("leace") else None  # the others need the spectra only
        parts = [self.config[name] for name in ("regressor", "paper", "probes")]
        data = {name: value for name, value in self.config["data"].items() if name not in ("path", "batch_size")}
        facts = cache_key(key, model, self.run.manifest["survey"]["content_hash"], *parts, data)
        return self.cache / "baselines" / f"table1-{facts}.json"

    def has(self, representation: Representation) -> bool:
        """Whether a baseline is in the cache."""
        try:
            return self.path(representation.key).is_file()
        except SpectangleError:  # said where its metrics are wanted
            return False

    def metrics(self, representation: Representation) -> dict[str, float] | str:
        """Metrics of a baseline, from the cache or computed, or why there are none."""
        try:
            return cached(self.path(representation.key), lambda: self._computed(representation))
        except SpectangleError as error:
            return str(error)

    def _computed(self, representation: Representation) -> dict[str, float]:
        regressor, paper, probes = self.parts["regressor"], self.parts["paper"], self.parts["probes"]
        metrics = score(self.baseline(representation), self.data, regressor, probes, self.cache, self.seed, paper)
        return {name: float(value) for name, value in metrics.items()}

    def baseline(self, representation: Representation) -> Baseline:
        """A baseline, fitted to the training stars."""
        data, key = self.data, representation.key
        places = [
            data.labels.index(name)
            for name in (representation.entangled if key.startswith("bottleneck") else representation.disentangled)
        ]
        if key == "pca":
            return Baseline(principal_components(data.train.flux.numpy()), data.labels, representation)
        if key == "pls":
            known = pls_components(data.train.flux.numpy(), data.train.labels.numpy())
            return Baseline(known, data.labels, representation)
        if key.startswith("bottleneck"):
            return Baseline(
                supervised_bottleneck(load_run_regressor(self.run, "spectra"), places), data.labels, representation
            )
        model = load_autoencoder(self.run)
        eraser = leace(model.embed_stars(data.train), data.train.labels[:, places].numpy())
        return Baseline(eraser, data.labels, representation, read=model.embed_stars)


def _most_workers() -> int:
    """Processes that compute baselines at the same time: one where they would share a GPU."""
    if chosen_device().type != "cpu":
        return 1
    return max(1, min(available_cores(), MOST_WORKERS, int(free_memory_gb() / MEMORY_GB)))


def _compute(
    fitted: list[_Fitted], wanted: Sequence[tuple[int, Representation]], workers: int
) -> dict[tuple[int, Representation], dict[str, float] | str]:
    """Metrics of some baselines of some runs, or why there are none."""
    for i in {i for i, _ in wanted}:
        _ = fitted[i].parts
    workers = max(1, min(workers, len(wanted)))
    shared = fitted, max(1, available_cores() // workers)
    advice = "run the same command again: it goes on; OMP_NUM_THREADS=1 takes one process."
    found: dict[tuple[int, Representation], dict[str, float] | str] = {}
    for place, (metrics, seconds) in in_processes(_timed, shared, wanted, workers, advice):
        i, one = wanted[place]
        found[i, one] = metrics
        words = f"{one.title}, seed {fitted[i].seed}"
        log.info("baseline %d of %d: %s: %.0f s", len(found), len(wanted), words, seconds)
    return found


def _timed(
    shared: tuple[list[_Fitted], int], i: int, representation: Representation
) -> tuple[dict[str, float] | str, float]:
    """Metrics of a baseline of one of some runs, or why there are none, and what they took in seconds."""
    start = time.perf_counter()
    fitted, threads = shared
    use_threads(threads)
    for other in fitted[:i] + fitted[i + 1 :]:
        other.forget_stars()
    return fitted[i].metrics(representation), time.perf_counter() - start


def _resolved(run: Run) -> dict[str, Any]:
    """The config with the interpolations of its regressor, the paper's, and its probes resolved."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(run.config)
    names = "regressor", "probes", "data"
    parts: dict[str, Any] = {name: OmegaConf.to_container(config[name], resolve=True) for name in names}
    parts["probes"].pop("gpu_packs_without", None)  # a baseline is no run of a pack
    paper = OmegaConf.select(config, "callbacks.regressor.paper")
    parts["paper"] = OmegaConf.to_container(paper, resolve=True) if paper else None
    return parts | {"seed": config.get("seed", 0)}
