"""How much faster is a regressor on the latent than on the spectra? python benchmarks/regressor_time.py RUN
[ITERATIONS]

The paper (section 3.3) reports a threefold reduction over 1000 iterations on six cores. Here scikit-learn's network of
the same size (200-100, all labels at once) is fitted for the same number of iterations on both, alternately, on one
thread.
"""

import sys
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spectangle.data.load import load_stars
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run


def seconds(features: np.ndarray, labels: np.ndarray, iterations: int) -> float:
    """Time of a fit to features [N, F] and labels [N, K] that never stops early."""
    x, y = StandardScaler().fit_transform(features), StandardScaler().fit_transform(labels)
    network = MLPRegressor(
        hidden_layer_sizes=(200, 100), max_iter=iterations, tol=0.0, n_iter_no_change=iterations + 1, random_state=0
    )
    start = time.perf_counter()
    network.fit(x, y)
    assert network.n_iter_ == iterations
    return time.perf_counter() - start


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("error: give a finished run: python benchmarks/regressor_time.py RUN [ITERATIONS]")
    run, iterations = Run(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10
    warnings.simplefilter("ignore", ConvergenceWarning)
    data = load_stars(run)
    labels = data.train.labels.numpy()
    inputs = {"spectra": data.train.flux.numpy(), "latent": load_autoencoder(run).embed_stars(data.train)}
    print(f"{len(labels)} training stars, {iterations} iterations, one thread")
    with threadpool_limits(1, user_api="blas"):
        times = {name: [] for name in inputs}
        for _ in range(3):  # alternately, so that a busy machine slows both
            for name, features in inputs.items():
                times[name].append(seconds(features, labels, iterations))
    for name, features in inputs.items():
        fits = ", ".join(f"{value:.1f}" for value in times[name])
        print(
            f"{name:8s} {features.shape[1]:4d} inputs  {min(times[name]) / iterations:.3f} s per iteration  "
            f"(fits: {fits} s)"
        )
    print(f"ratio spectra / latent: {min(times['spectra']) / min(times['latent']):.2f} (paper: 3)")


if __name__ == "__main__":
    main()
