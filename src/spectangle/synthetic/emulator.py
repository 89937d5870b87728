r"""Spectra in microseconds: principal components and a small network that stand in for the synthesis.

The network maps labels and broadening to component scores; everything is evaluated in plain numpy.
Rebuild the shipped weights with ``python -m spectangle.synthetic.rebuild``.

Shapes: N stars, 5 inputs (teff, logg, m_h, alpha_fe, vbroad), K components, P pixels.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.synthetic.population import FASTEST, LABELS, LIMITS, LabelsLike

__all__ = ["Emulator", "default_emulator", "emulate", "features"]

BLOCK = 2048  # stars at a time, so that memory stays small
DECIMALS = 6  # of the flux
INSTRUMENT_KMS = 18.8  # broadening that doubles the variance of the instrument's profile


class Emulator:
    r"""Predict spectra with a network on principal components.

    .. math:: f(x) = \bar f + C^T (W_3 \, s(W_2 \, s(W_1 u + b_1) + b_2) + b_3), \quad s(t) = t / (1 + e^{-t})

    Arguments:
        weights [in, out]: Layers, the last one onto K components.
        biases: sequence of array [out]
        components: array [K, P]
        mean [P]: Mean spectrum.
    """

    def __init__(
        self, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], components: np.ndarray, mean: np.ndarray
    ):
        self.weights = [np.asarray(w, np.float64) for w in weights]
        self.biases = [np.asarray(b, np.float64) for b in biases]
        self.components, self.mean = np.asarray(components, np.float64), np.asarray(mean, np.float64)

    def __call__(self, labels: np.ndarray, vbroad: np.ndarray) -> np.ndarray:
        """Return float32 spectra [N, P] for labels [N, 4] and broadening [N] in km/s.

        Sums run in float64 and end on :data:`DECIMALS` places: their order, which changes with the number of threads
        and of stars, then does not show.
        """
        spectra = np.empty((len(labels), len(self.mean)), np.float32)
        for start in range(0, len(labels), BLOCK):
            block = slice(start, start + BLOCK)
            spectra[block] = np.round(self._predict(features(labels[block], vbroad[block])), DECIMALS)
        return spectra

    def _predict(self, hidden: np.ndarray) -> np.ndarray:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight + bias
            hidden = hidden / (1.0 + np.exp(-hidden))
        return (hidden @ self.weights[-1] + self.biases[-1]) @ self.components + self.mean

    def save(self, path: Path) -> None:
        """Write plain arrays beside the file, then rename: a reader never sees half a file."""
        arrays = {"components": self.components, "mean": self.mean}
        arrays.update({f"weight_{i}": w for i, w in enumerate(self.weights)})
        arrays.update({f"bias_{i}": b for i, b in enumerate(self.biases)})
        partial = path.with_name(f".{path.stem}.partial.npz")
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        np.savez_compressed(partial, **arrays)  # pyright: ignore[reportArgumentType]
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Emulator":
        """Read the arrays that :meth:`save` wrote; nothing in the file is ever executed."""
        with np.load(path, allow_pickle=False) as file:
            layers = range(sum(name.startswith("weight_") for name in file.files))
            weights, biases = [file[f"weight_{i}"] for i in layers], [file[f"bias_{i}"] for i in layers]
            return cls(weights, biases, file["components"], file["mean"])


def features(labels: np.ndarray, vbroad: np.ndarray) -> np.ndarray:
    """Scale labels [N, 4] by their limits, and broadening by its effect on line widths, to about -1 ... 1: [N, 5]."""
    low, high = LIMITS.T
    scaled = 2.0 * (labels - low) / (high - low) - 1.0
    widening = np.log(np.hypot(1.0, vbroad / INSTRUMENT_KMS))
    return np.column_stack([scaled, 2.0 * widening - 1.0])


@lru_cache
def default_emulator() -> Emulator:
    """Load the emulator that comes with the package, once."""
    with as_file(files("spectangle.synthetic") / "emulator.npz") as path:
        return Emulator.load(path)


def emulate(labels: LabelsLike, vbroad: np.ndarray | float = 5.0) -> np.ndarray:
    """Predict the noise-free spectra of any stars inside the label limits.

    Arguments:
        labels: By name, each [N], or [N, 4] in this order: ``teff`` [K], ``logg`` [dex, cgs], ``m_h`` [dex],
            ``alpha_fe`` [dex].
        vbroad [N]: Rotation and macroturbulence, 0 to 60 km/s.

    Returns:
        array [N, P]: Flux over continuum, float32, on :data:`~spectangle.synthetic.synthesis.WAVELENGTH`.

    Raises:
        SpectangleError: If a star lies outside the limits that the emulator was trained on.
    """
    table = np.column_stack([labels[name] for name in LABELS]) if isinstance(labels, Mapping) else np.asarray(labels)
    table = np.atleast_2d(table).astype(float)
    broadening = np.broadcast_to(np.asarray(vbroad, float), len(table))
    _check_inside(table, broadening)
    return default_emulator()(table, broadening)


def _check_inside(labels: np.ndarray, vbroad: np.ndarray) -> None:
    values = np.column_stack([labels, vbroad])
    bounds = {**dict(zip(LABELS, LIMITS, strict=True)), "vbroad": (0.0, FASTEST)}
    for (name, (low, high)), column in zip(bounds.items(), values.T, strict=True):
        if not ((column >= low) & (column <= high)).all():
            raise SpectangleError(
                f"{name} runs from {column.min():g} to {column.max():g}, but the emulator knows {low:g} to "
                f"{high:g} only; "
                "leave those stars out, or clip the value."
            )
