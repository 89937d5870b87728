"""How far is what a sweep in packs on a GPU measures from what every other run does? python benchmarks/gpu_measures.py
RUN

Of a finished run, on any machine: R2 of all probes together, floors and excesses on test stars by every probe and
without those that such a sweep leaves out; and what the paper's network reads of validation stars, by scikit-learn and
by torch, four seeds each.
"""

import sys
import warnings

import hydra
import numpy as np
from omegaconf import OmegaConf
from threadpoolctl import threadpool_limits

from spectangle.configs.resolvers import register_resolvers
from spectangle.data.load import load_stars
from spectangle.evaluation.probes import Probes
from spectangle.evaluation.regressors import sklearn_regressor, torch_regressor
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run
from spectangle.runs.sweep_link import link

SEEDS = range(4)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("error: give a finished run: python benchmarks/gpu_measures.py RUN")
    warnings.simplefilter("ignore", UserWarning)  # Hydra's, on what a config may call
    register_resolvers()
    run = Run(sys.argv[1])
    model, data = load_autoencoder(run), load_stars(run)
    data.classify_with(model.adversary.classify)
    print_excesses(run, model, data)
    print_errors(model, data)


def print_excesses(run: Run, model, data) -> None:
    parts = hydra.utils.instantiate(OmegaConf.create(run.config).probes)
    for link.gpu_packs in (False, True):
        found = Probes(**parts).score(model, data, data.test, spare=data.validation)
        print("in packs on a GPU, without", *parts.gpu_packs_without) if link.gpu_packs else print("by every probe")
        for name in data.labels:
            shown = {"R2": f"probe/{name}/r2", "floor": f"floor/{name}", "excess": f"excess/{name}"}
            print(f"  {name:10s}", *(f"{word} {found[key]:.4f}" for word, key in shown.items() if key in found))


def print_errors(model, data) -> None:
    fitted, scored = (model.embed_stars(stars) for stars in (data.train, data.validation))
    truth = data.validation.labels.numpy()
    with threadpool_limits(1, user_api="blas"):
        for build in (sklearn_regressor, torch_regressor):
            for seed in SEEDS:
                read = build(seed=seed).fit(fitted, data.train.labels.numpy()).predict(scored)
                errors = np.abs(read - truth).mean(axis=0)
                print(build.__name__, seed, *(f"{n} {e:.4g}" for n, e in zip(data.labels, errors, strict=True)))


if __name__ == "__main__":
    main()
