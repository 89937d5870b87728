"""Latents in two dimensions: principal components, and t-SNE computed once and kept with the run.

Shapes: n stars, Z latent.
"""

import logging
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from spectangle.files import whole_file

__all__ = ["latent_maps"]

log = logging.getLogger(__name__)


def latent_maps(latent: np.ndarray, stored: Path | None = None) -> dict[str, np.ndarray]:
    """Maps [n, 2] of latents [n, Z]: ``pca`` and ``tsne`` (van der Maaten & Hinton 2008, section 2.3 of the paper).

    Arguments:
        latent: z of the stars on the map.
        stored: Where the t-SNE is kept; it takes seconds. A folder that cannot be written is no reason to stop.
    """
    if stored is not None and stored.is_file():
        with np.load(stored) as file:
            if np.array_equal(file["latent"], latent):
                return {"pca": file["pca"], "tsne": file["tsne"]}
    log.info("t-SNE of %d stars, once for each run ...", len(latent))
    maps = {"pca": _pca(latent), "tsne": _tsne(latent)}
    if stored is not None:
        _store(stored, latent=latent, **maps)
    return maps


def _pca(latent: np.ndarray) -> np.ndarray:
    centred = latent - latent.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ axes[:2].T
    return np.column_stack([scores, np.zeros((len(scores), 2 - scores.shape[1]))]).astype(np.float32)


def _tsne(latent: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    if len(latent) < 12:
        return _pca(latent)
    start = _pca(latent)
    start = start / max(float(start[:, 0].std()), 1e-9) * 1e-4  # as scikit-learn scales its own PCA start
    # one thread: on a busy machine the threads of t-SNE wait for each other most of the time
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        embedding: Any = TSNE(perplexity=min(30, (len(latent) - 1) / 3), init=start, max_iter=500, random_state=0)  # pyright: ignore[reportArgumentType]
        return embedding.fit_transform(latent).astype(np.float32)


def _store(path: Path, **arrays: np.ndarray) -> None:
    with suppress(OSError), whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
