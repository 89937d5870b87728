"""The regressors that read labels from a representation, and the files that they are kept in.

Shapes: N stars, F features (800 pixels or 25 latents), K labels.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from spectangle.configs.targets import OWN, own_packages
from spectangle.errors import SpectangleError
from spectangle.evaluation.averaged_networks import AveragedMLPRegressor
from spectangle.files import whole_file
from spectangle.packs.line import begin_fit
from spectangle.packs.stopped_fits import Stopped, StoppedFit
from spectangle.runs.folder import Run

__all__ = [
    "LabelGroups",
    "NetworksAndKernel",
    "TorchMLPRegressor",
    "averaged_regressor",
    "check_kept",
    "load_regressor",
    "load_run_regressor",
    "ridge_regressor",
    "save_regressor",
    "sklearn_regressor",
    "small_survey_regressor",
    "torch_regressor",
]

TRUSTED = [
    "spectangle.evaluation.averaged_networks.AveragedMLPRegressor",
    "spectangle.evaluation.regressors.LabelGroups",
    "spectangle.evaluation.regressors.NetworksAndKernel",
    "spectangle.evaluation.regressors.TorchMLPRegressor",
]
REMEDY = f"If you trust their package, name it in the environment ({OWN}), else use another regressor."


def sklearn_regressor(
    hidden: Sequence[int] = (200, 100),
    max_iter: int = 200,
    patience: int = 10,
    alpha: float = 1e-4,
    early_stopping: bool = True,
    seed: int = 0,
) -> BaseEstimator:
    """Build the paper's regressor: scikit-learn's network with two hidden layers, all labels at once (section 3.3).

    Inputs and labels are standardised; 10 % of the fitting stars decide when to stop, or the training loss if
    ``early_stopping`` is off.
    """
    options: dict[str, Any] = {"alpha": alpha, "max_iter": max_iter, "n_iter_no_change": patience, "random_state": seed}
    network = MLPRegressor(hidden_layer_sizes=tuple(hidden), early_stopping=early_stopping, **options)
    return _standardised(network)


def torch_regressor(
    hidden: Sequence[int] = (200, 100),
    max_iter: int = 200,
    patience: int = 10,
    alpha: float = 1e-4,
    seed: int = 0,
    batch_size: int = 200,
) -> BaseEstimator:
    """Build the same network with the same stopping rule, trained in torch: faster on many inputs or on a GPU."""
    return _standardised(TorchMLPRegressor(tuple(hidden), alpha, max_iter, patience, batch_size, seed))


def averaged_regressor(
    hidden: Sequence[int] = (128, 64, 64),
    members: int = 2,
    epochs: int = 12,
    batch_size: int = 256,
    lr: float = 8e-3,
    weight_decay: float = 1e-2,
    loss: str = "absolute_error",
    seed: int = 0,
) -> BaseEstimator:
    """Build the mean of wider networks that are fitted to all stars, for a fixed number of epochs, and read the median
    of what a label may be.

    Inputs and labels are standardised.
    """
    return _standardised(AveragedMLPRegressor(tuple(hidden), members, epochs, batch_size, lr, weight_decay, loss, seed))


def ridge_regressor() -> BaseEstimator:
    """Build ridge regression, one penalty for each label by leave-one-out cross-validation: hard to beat on the spectra
    of few stars.

    Inputs are centred, not standardised: a pixel counts by what happens in it.
    """
    ridge = RidgeCV(np.logspace(-3, 3, 19), alpha_per_target=True)
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(with_std=False), ridge), transformer=StandardScaler(), check_inverse=False
    )


def _standardised(network: BaseEstimator) -> BaseEstimator:
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(), network), transformer=StandardScaler(), check_inverse=False
    )


def small_survey_regressor(
    hidden: Sequence[int] = (50,),
    members: int = 3,
    max_iter: int = 500,
    alpha: float = 3.0,
    C: float = 1.0,
    epsilon: float = 0.1,
    seed: int = 0,
) -> BaseEstimator:
    """Build the mean of small networks and a support vector machine, for some hundred stars."""
    return _standardised(NetworksAndKernel(tuple(hidden), members, max_iter, alpha, C, epsilon, seed))


class LabelGroups(RegressorMixin, BaseEstimator):
    """Fit one regressor to each group of labels that the same stars have with the same weights; to each label, if it
    reads one at a time.

    Arguments:
        regressor: Unfitted; it must take ``sample_weight`` if labels are weighed.
    """

    def __init__(self, regressor: Any = None):
        self.regressor = regressor

    def fit(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> "LabelGroups":
        """Fit to X [N, F] and y [N, K], NaN where a label is missing, with weights of the stars [N, K] (None: all the
        same).
        """
        self.groups_ = []
        for columns in label_groups(y, weights):
            known = np.isfinite(y[:, columns[0]])
            own = None if weights is None else weights[known, columns[0]]
            self.groups_ += self._fitted(columns, X[known], y[known], own)
        return self

    def _fitted(
        self, columns: list[int], X: np.ndarray, y: np.ndarray, weights: np.ndarray | None
    ) -> list[tuple[list[int], Any]]:
        try:
            return [(columns, _fit(clone(self.regressor), X, y[:, columns], weights))]
        except ValueError:  # support vector machines, boosting ... want one; scikit-learn's tags say so of networks too
            if len(columns) == 1:
                raise
            return [([k], _fit(clone(self.regressor), X, y[:, k], weights)) for k in columns]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        labels = np.empty((len(X), sum(len(columns) for columns, _ in self.groups_)))
        for columns, fitted in self.groups_:
            labels[:, columns] = np.asarray(fitted.predict(X)).reshape(len(X), -1)
        return labels


def label_groups(y: np.ndarray, weights: np.ndarray | None = None) -> list[list[int]]:
    """Columns of y [N, K] whose labels the same stars have, with the same weights [N, K]."""
    groups: dict[bytes, list[int]] = {}
    for k in range(y.shape[1]):
        known = np.isfinite(y[:, k])
        key = known.tobytes() + (b"" if weights is None else weights[known, k].tobytes())
        groups.setdefault(key, []).append(k)
    return list(groups.values())


def _fit(regressor: Any, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Any:
    if weights is None:
        return regressor.fit(X, y)
    steps = getattr(getattr(regressor, "regressor", regressor), "steps", None)
    key = f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"  # a pipeline hands it to its last step
    try:
        return regressor.fit(X, y, **{key: weights})
    except TypeError as error:
        raise SpectangleError(
            f"labels.weight=errors needs a regressor that takes weights ({error}); use regressor=averaged, "
            "sklearn, torch, small or ridge, or labels.weight=none."
        ) from error


class NetworksAndKernel(RegressorMixin, BaseEstimator):
    """The mean of two predictions: that of averaged networks, and that of support vector machines with a Gaussian
    kernel.

    The networks are trained on all stars, with a penalty in place of a held-out tenth. Inputs and labels are to be
    standardised.

    Arguments:
        hidden: Widths of each network's hidden layers.
        members: Networks that are averaged.
        max_iter: Epochs of each.
        alpha: Weight of their L2 penalty.
        C, epsilon: Of the support vector machines; the kernel is exp(-|x - x'|^2 / 4 F), wide enough to be smooth.
        seed: Of the first network.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (50,),
        members: int = 3,
        max_iter: int = 500,
        alpha: float = 3.0,
        C: float = 1.0,
        epsilon: float = 0.1,
        seed: int = 0,
    ):
        self.hidden, self.members, self.max_iter, self.alpha = hidden, members, max_iter, alpha
        self.C, self.epsilon, self.seed = C, epsilon, seed

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "NetworksAndKernel":
        """Fit to X [N, F] and y [N, K], with weights of the stars [N] (None: all the same)."""
        y = y.reshape(len(y), -1)
        target = y if y.shape[1] > 1 else y.ravel()
        options: dict[str, Any] = {"hidden_layer_sizes": self.hidden, "alpha": self.alpha, "max_iter": self.max_iter}
        self.networks_ = [
            MLPRegressor(random_state=self.seed + i, **options).fit(X, target, sample_weight)
            for i in range(self.members)
        ]
        self.gamma_ = 0.25 / X.shape[1]
        self.machines_ = [
            SVR(C=self.C, gamma=self.gamma_, epsilon=self.epsilon).fit(X, column, sample_weight) for column in y.T
        ]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        networks = np.mean([np.asarray(network.predict(X)).reshape(len(X), -1) for network in self.networks_], axis=0)
        return (networks + np.column_stack([machine.predict(X) for machine in self.machines_])) / 2


class TorchMLPRegressor(RegressorMixin, BaseEstimator):
    """scikit-learn's ``MLPRegressor(early_stopping=True)``, trained in torch; see
    :class:`~spectangle.packs.stopped_fits.StoppedFit`.

    Arguments:
        hidden: Widths of the hidden layers.
        alpha: Weight of the L2 penalty.
        max_iter: Epochs at most.
        patience: Epochs without improvement before it stops.
        batch_size: Stars per batch.
        seed: Seed of weights, held-out stars and order.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (200, 100),
        alpha: float = 1e-4,
        max_iter: int = 200,
        patience: int = 10,
        batch_size: int = 200,
        seed: int = 0,
    ):
        self.hidden, self.alpha, self.max_iter = hidden, alpha, max_iter
        self.patience, self.batch_size, self.seed = patience, batch_size, seed

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "TorchMLPRegressor":
        """Fit to X [N, F] and y [N, K], with weights of the stars [N] (None: all the same).

        Raises:
            SpectangleError: It diverged.
        """
        shares = np.ones(len(X)) if sample_weight is None else sample_weight / np.mean(sample_weight)
        inputs, labels, shares = (np.asarray(values, np.float32) for values in (X, y.reshape(len(y), -1), shares))
        settings = tuple(self.hidden), self.alpha, self.max_iter, self.patience, self.batch_size, self.seed
        fitted: Stopped = begin_fit(StoppedFit(inputs, labels, shares, *settings))()
        if not np.isfinite(fitted.score):
            raise SpectangleError("The downstream regressor diverged: its inputs are not finite or too large.")
        self.coefs_, self.intercepts_ = map(list, zip(*fitted.layers, strict=True))
        self.n_iter_, self.best_validation_score_ = fitted.epochs, fitted.score
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        h = np.asarray(X, np.float32)
        for layer, (w, b) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            h = h @ w + b
            if layer < len(self.coefs_) - 1:
                np.maximum(h, 0, out=h)
        return h


def load_regressor(path: str | Path) -> BaseEstimator:
    """Load a fitted regressor; a file that holds anything but scikit-learn's types, our own and those of packages that
    ``SPECTANGLE_TARGETS`` names is refused.

    Raises:
        SpectangleError: It holds something else.
    """
    import skops.io

    types = skops.io.get_untrusted_types(file=path)
    if unknown := _unknown(types):
        raise SpectangleError(f"{path} holds the types {', '.join(unknown)}, which are not known to be safe. {REMEDY}")
    return skops.io.load(path, trusted=types)


def check_kept(regressor: BaseEstimator) -> None:
    """Refuse a fitted regressor that could not be read back from the file that it is kept in.

    Raises:
        SpectangleError: It holds types that are not known to be safe, or skops cannot keep it.
    """
    import skops.io

    try:
        data = skops.io.dumps(regressor)
        types = skops.io.get_untrusted_types(data=data)
        unknown = _unknown(types)
        if not unknown:
            skops.io.loads(data, trusted=types)
    except Exception as error:
        raise SpectangleError(f"it cannot be kept in a file without pickle ({error})") from error
    if unknown:
        raise SpectangleError(f"it holds the types {', '.join(unknown)}, which no file is trusted with. {REMEDY}")


def _unknown(types: Sequence[str]) -> list[str]:
    """Those of the types that are neither ours, nor of a package that was named, nor classes of scikit-learn.

    Its classes (trees, neighbours, kernels) hold numbers and run nothing when they are loaded; functions, its own
    included, may do anything when they are called.
    """
    own = tuple(f"{package}." for package in own_packages())
    others = sorted(name for name in types if name not in TRUSTED and not name.startswith(own))
    return [name for name in others if not (name.startswith("sklearn.") and inspect.isclass(locate(name)))]


def load_run_regressor(run: Run, representation: str = "latent") -> Any:
    """The fitted downstream regressor, ``latent`` or ``spectra`` (the baseline)."""
    path = run.path / "regressors" / f"{representation}.skops"
    if not path.is_file():
        missing = f"{run.path} has no regressor on the {representation} ({path.name} is missing)"
        if run.finished:
            option = "callbacks.regressor" if representation == "latent" else "callbacks.regressor.cache"
            raise SpectangleError(f"{missing}, and is finished: train again with {option}, in another folder.")
        raise SpectangleError(f"{missing}; go on with: spectangle train resume={run.path}")
    return load_regressor(path)


def save_regressor(regressor: BaseEstimator, path: Path) -> None:
    """Save a fitted regressor beside its name, then rename."""
    import skops.io

    with whole_file(path) as part:
        skops.io.dump(regressor, part)
