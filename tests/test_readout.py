"""The fitted regressor as one torch network: the same labels as scikit-learn's, in torch, in the fast layers and in
ONNX.
"""

import subprocess

import numpy as np
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import Ridge
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, QuantileTransformer, StandardScaler
from sklearn.svm import SVR

from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import (
    LabelGroups,
    averaged_regressor,
    check_kept,
    load_regressor,
    ridge_regressor,
    save_regressor,
    sklearn_regressor,
    small_survey_regressor,
    torch_regressor,
)
from spectangle.inference.fast_networks import FastLayers
from spectangle.inference.python_readout import PythonReadout, readout_of
from spectangle.inference.readout import Readout
from spectangle.model.plain_layers import folded_layers

REGRESSORS = {
    "averaged": averaged_regressor(hidden=(12, 6), members=3, epochs=5),
    "sklearn": sklearn_regressor(hidden=(12, 6), max_iter=5),
    "torch": torch_regressor(hidden=(12, 6), max_iter=5),
    "ridge": ridge_regressor(),
    "small": small_survey_regressor(hidden=(9,), members=2, max_iter=20),
    "small, two layers": small_survey_regressor(hidden=(9, 5), members=3, max_iter=20),
}


@pytest.fixture(scope="module")
def stars():
    random = np.random.default_rng(0)
    z = random.normal(size=(300, 7)).astype(np.float32) * [1, 2, 3, 1, 1, 1, 0.1] + 5
    return (
        z,
        np.column_stack([5000 + 300 * np.sin(z[:, 0]), z[:, 1] * 0.2]),
        random.normal(size=(50, 7)) * [1, 2, 3, 1, 1, 1, 0.1] + 5,
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", REGRESSORS)
def test_the_readout_reads_what_the_regressor_reads(stars, name, tmp_path):
    z, labels, new = stars
    fitted = REGRESSORS[name].fit(z, labels)
    save_regressor(fitted, tmp_path / "r.skops")
    readout = Readout.from_regressor(load_regressor(tmp_path / "r.skops"))
    expected, scale = fitted.predict(new), labels.std(0)
    latent = torch.as_tensor(new, dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(readout(latent) / scale, expected / scale, atol=2e-4)
        fast = readout.read(latent, [FastLayers(folded_layers(part.layers)) for part in readout.parts])
    np.testing.assert_allclose(fast / scale, expected / scale, atol=2e-4)
    again = Readout(readout.config)
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again(latent), readout(latent))


def power_of(regressor):
    """One that is fitted to the logarithm of the labels."""
    return TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)


def in_steps(*steps):
    return TransformedTargetRegressor(make_pipeline(*steps), transformer=StandardScaler())


OTHERS = {
    "forest": RandomForestRegressor(3),
    "neighbours": KNeighborsRegressor(5),
    "boosted": MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=5)),
    "boosted, one label at a time": GradientBoostingRegressor(n_estimators=5),
    "support vectors, one label at a time": in_steps(StandardScaler(), SVR()),
    "Gaussian process": in_steps(StandardScaler(), GaussianProcessRegressor(RBF() + WhiteKernel())),
    "a step between": in_steps(StandardScaler(), PolynomialFeatures(2), Ridge()),
    "a step of the same size": in_steps(StandardScaler(), QuantileTransformer(n_quantiles=50), Ridge()),
    "labels that are not centred": TransformedTargetRegressor(
        make_pipeline(StandardScaler(), Ridge()), transformer=StandardScaler(with_mean=False)
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_any_regressor_reads_what_it_reads_after_its_file(stars, name, tmp_path):
    z, labels, new = stars
    labels = np.abs(labels) + 1
    fitted = LabelGroups(OTHERS[name]).fit(z, labels)
    check_kept(fitted)
    save_regressor(fitted, tmp_path / "r.skops")
    readout = readout_of(load_regressor(tmp_path / "r.skops"))
    latent = torch.as_tensor(new, dtype=torch.float32)
    read = readout.read(latent, [FastLayers(folded_layers(part.layers)) for part in readout.parts])
    np.testing.assert_allclose(read, fitted.predict(latent.numpy()), rtol=1e-5)
    assert torch.equal(readout(latent), read)
    with pytest.raises(SpectangleError, match="This cannot be. The run's regressor"):
        readout.check_copied("This cannot be")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REGRESSORS)
def test_those_of_the_project_are_copied(stars, name):
    z, labels, _ = stars
    readout = readout_of(LabelGroups(REGRESSORS[name]).fit(z, labels))
    assert not isinstance(readout, PythonReadout)
    readout.check_copied("This cannot be")


def test_what_no_file_is_trusted_with_is_said_before_the_training(stars):
    z, labels, _ = stars
    fitted = power_of(Ridge()).fit(z, np.abs(labels) + 1)
    check_kept(fitted)  # numpy's functions of one array are known to skops
    fitted.inverse_func = subprocess.run
    with pytest.raises(SpectangleError, match="holds the types subprocess.run, which no file is trusted with"):
        check_kept(fitted)


def test_networks_and_kernel_are_averaged(stars):
    z, labels, new = stars
    fitted = small_survey_regressor(hidden=(9,), members=2, max_iter=20).fit(z, labels)
    parts = fitted.regressor_.steps[-1][1]
    x = fitted.regressor_.steps[0][1].transform(new)
    networks, machines = (
        np.mean([n.predict(x) for n in parts.networks_], axis=0),
        np.column_stack([m.predict(x) for m in parts.machines_]),
    )
    assert np.abs(networks - machines).max() > 0.01
    np.testing.assert_allclose(parts.predict(x), (networks + machines) / 2)
