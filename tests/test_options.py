"""Options that no other test changes: each has its effect. And no option is without a test."""

import re
from typing import Any

import lightning as L
import numpy as np
import optuna
import pytest
import torch
from archive_files import Stars, write_bulk, write_galah
from astropy.table import Table
from commands import ROOT
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from test_conf import CONF, composed
from test_model import build, fit

from spectangle.archives import GaiaFiles, Gandalf, LabelSources, Plain
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.configs.targets import targets
from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.inference.quality import Limits, Quality, quality
from spectangle.sweeps.plan import make_plan
from spectangle.sweeps.slurm import sbatch_options


def made(node: DictConfig, **changes: Any) -> Any:
    """What a node of the config is a recipe of."""
    return instantiate(node, **changes, _execution_whitelist_=targets())


# ---------------------------------------------------------------------- archives


def test_the_grid_of_spectra_that_bring_none(tmp_path):
    stars = Stars(3, n_pixels=40)
    np.save(tmp_path / "flux.npy", stars.flux)
    stars.table().write(tmp_path / "stars.ecsv")
    write_bulk(tmp_path / "rvs.csv", stars)
    grid = {"grid_start": 850.0, "grid_step": 0.02}
    plain = Plain(str(tmp_path / "flux.npy"), str(tmp_path / "stars.ecsv"), **grid)
    for archive, file in ((plain, "flux.npy"), (GaiaFiles(str(tmp_path), **grid), "rvs.csv")):
        (chunk,) = archive.read(tmp_path / file, BadRows(0))
        np.testing.assert_allclose(chunk.wavelength, 850 + 0.02 * np.arange(40))


def test_the_columns_of_ids(tmp_path):
    stars = Stars(3, n_pixels=40)
    np.save(tmp_path / "flux.npy", stars.flux)
    Table({"source_id": stars.ids + 1, "star": stars.ids, **stars.labels}).write(tmp_path / "stars.ecsv")
    plain = Plain(str(tmp_path / "flux.npy"), str(tmp_path / "stars.ecsv"), id_column="star")
    (chunk,) = plain.read(tmp_path / "flux.npy", BadRows(0))
    (table,) = LabelSources(table=str(tmp_path / "stars.ecsv"), id_column="star").read(BadRows(0))
    for ids in (chunk.source_id, plain.labels(BadRows(0)).source_id, table.source_id):
        np.testing.assert_array_equal(ids, stars.ids)


def test_the_names_of_gandalfs_labels(tmp_path):
    arrays = {"X": np.ones((3, 5)), "params": np.arange(6.0).reshape(3, 2), "ids": np.arange(3), "axis_labels": [1.0]}
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    labels = Gandalf(str(tmp_path), label_names=["age", "c_fe"]).labels(BadRows(0)).labels
    assert {name: values.tolist() for name, values in labels.items()} == {"age": [0, 2, 4], "c_fe": [1, 3, 5]}


def test_releases_and_columns_of_galah(tmp_path):
    path, stars = tmp_path / "galah.fits", Stars(3, n_pixels=5)
    write_galah(path, stars, phot_g_mean_mag=stars.g, my_teff=stars.labels["teff"] + 1)
    (table,) = LabelSources(galah=str(path), galah_columns={"teff": "my_teff"}).read(BadRows(0))
    np.testing.assert_allclose(table.labels["teff"], stars.labels["teff"] + 1, rtol=1e-6)
    with pytest.raises(SpectangleError, match="gaiadr3_source_id"):  # as DR4 calls it
        LabelSources(galah=str(path), galah_release="DR4").read(BadRows(0))


# ---------------------------------------------------------------------- stars


def test_the_part_of_the_stars_that_validates(toy_survey):
    counts = []
    for fraction in (0.1, 0.5):
        data = SpectraDataModule(str(toy_survey), validation_fraction=fraction)
        data.setup()
        counts.append(len(data.validation))
    assert counts[1] > 3 * counts[0]


def test_another_population_is_another_survey(own_cache):
    labels = []
    for number in (0, 1):
        data = EmbeddedSurveyDataModule(n_stars=60, survey_seed=number)
        data.setup()
        labels.append(data.train.labels[:40])
    assert not torch.equal(*labels)


# ---------------------------------------------------------------------- model and training


@pytest.fixture(scope="module")
def data(toy_survey):
    data = SpectraDataModule(str(toy_survey), batch_size=64)
    data.setup()
    return data


def test_the_latent_is_noisy_while_training_and_only_then(data):
    model, stars = build(data, latent_noise=0.5), data.train
    batch = (stars.flux, stars.noise, stars.targets, stars.classes, stars.weights)
    step = model.look(batch, model.draw(len(stars)))
    assert (step["z"] - step["mean"]).detach().std() == pytest.approx(0.5, rel=0.05)
    clean = model.eval().encoder(model.flux_scaler(data.validation.flux)).detach()
    assert (model.embed_stars(data.validation) == clean.numpy()).all()


@pytest.mark.parametrize("key", ["betas", "discriminator_betas"])
def test_the_memory_of_either_optimiser(data, key):
    ends = []
    for optimizer in ({}, {}, {key: [0.1, 0.2]}):
        L.seed_everything(0, verbose=False)
        model = build(data, optimizer=optimizer)
        fit(model, data, epochs=1)
        moved = model.adversary if key == "discriminator_betas" else model.encoder
        ends.append(torch.cat([parameter.detach().flatten() for parameter in moved.parameters()]))
    assert torch.equal(ends[0], ends[1]) and not torch.allclose(ends[0], ends[2])


def test_what_the_trainer_is_told():
    cfg = composed("trainer.num_sanity_val_steps=3", "trainer.log_every_n_steps=7")
    trainer = made(cfg.trainer, accelerator="cpu", enable_checkpointing=False)
    assert (trainer.num_devices, trainer.num_sanity_val_steps, trainer.log_every_n_steps) == (1, 3, 7)


# ---------------------------------------------------------------------- probes and regressors

OTHER = {  # another value of each setting, and where it tells
    "C": 0.1,
    "alpha": 30.0,
    "alphas": [1e3],
    "batch_size": 16,
    "epochs": 2,
    "epsilon": 0.9,
    "gamma": 1.0,
    "hidden": [3],
    "learning_rate": 0.02,
    "loss": "squared_error",
    "lr": 1e-4,
    "max_bins": 3,
    "max_iter": 2,
    "members": 1,
    "min_samples_leaf": 20,
    "n_estimators": 3,
    "n_neighbors": 5,
    "random_state": 1,
    "seed": 1,
    "weight_decay": 5.0,
    "weights": "uniform",
}
UNSEEN = {("probes.large.boosting", "random_state")}  # draws nothing unless it stops early, above 10,000 stars


def settings() -> list[tuple[str, str, str]]:
    """(override that chooses it, place in the config, setting) of every probe and regressor that comes with us."""
    regressors = [(f"regressor={name}", "regressor") for name in ("averaged", "sklearn", "torch", "small", "ridge")]
    probes = [("probes=default", f"probes.{suite}.{name}") for suite in ("large", "small") for name in suite_of(suite)]
    return [
        (override, place, str(key))
        for override, place in (*regressors, *probes)
        for key in OmegaConf.select(composed(override), place)
        if not str(key).startswith("_") and (place, key) not in UNSEEN and key != "patience"
    ]


def suite_of(suite: str) -> list[str]:
    return [str(name) for name in composed().probes[suite]]


def readable() -> tuple[np.ndarray, np.ndarray]:
    """Inputs [160, 5] and noisy labels [160, 2] of them."""
    random = np.random.default_rng(0)
    x = random.normal(size=(160, 5)).astype(np.float32)
    y = np.stack([np.sin(2 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3]], axis=1)
    return x, y + random.normal(size=(160, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("override", "place", "key"), settings())
def test_each_setting_of_a_probe_or_regressor_changes_what_it_reads(override, place, key):
    x, y = readable()
    y = y[:, 0] if place.endswith(("boosting", "svr", "svr_smooth")) else y
    few = {"epochs": 3, "max_iter": 20}
    node: Any = OmegaConf.select(composed(override), place)
    answers = [
        made(node, **{name: value for name, value in (few | change).items() if name in node}).fit(x[:120], y[:120])
        for change in ({}, {key: OTHER[key]})
    ]
    assert not np.allclose(*(fitted.predict(x[120:]) for fitted in answers))


@pytest.mark.parametrize("name", ["sklearn", "torch"])
def test_a_patient_regressor_trains_longer(name):
    node = composed(f"regressor={name}", "regressor.max_iter=1000").regressor
    epochs = [made(node, patience=patience).fit(*readable()).regressor_[-1].n_iter_ for patience in (1, 40)]
    assert epochs[0] + 30 < epochs[1]


# ---------------------------------------------------------------------- use of a run


@pytest.mark.parametrize(
    ("limit", "flag"),
    [("max_ood", Quality.OUT_OF_DISTRIBUTION), ("max_misfit", Quality.POOR_RECONSTRUCTION)],
)
def test_the_limits_of_the_quality_flags(limit, flag):
    one = np.ones(1)
    star = {"snr": 50 * one, "masked": 0 * one, "labels": np.zeros((1, 1)), "label_range": np.array([[-1], [1]])}
    words = [quality(given, **star, ood=2 * one, misfit=2 * one)[0] for given in (Limits(), Limits(**{limit: 3.0}))]
    assert words[0] & flag and not words[1] & flag


# ---------------------------------------------------------------------- sweeps


def more(cfg, trial) -> None:
    trial.suggest_int("y", 1, 2)


def test_a_search_space_of_ones_own():
    config = OmegaConf.create({"objective": "score", "x": 0, "hydra": {"sweep": {"dir": "sweep"}}})
    grid = {"_target_": "optuna.samplers.GridSampler"}
    options = {"custom_search_space": "test_options.more"}
    plan = make_plan(config, ["x=1,2"], grid, None, "minimize", None, options)
    assert plan.grid == [{"x": x, "y": y} for x in (1, 2) for y in (1, 2)]


@pytest.mark.parametrize(
    ("change", "rungs"), [({}, {2, 6}), ({"min_resource": 5}, {5, 15}), ({"reduction_factor": 2}, {2, 4})]
)
def test_where_halving_prunes(change, rungs):
    node: Any = OmegaConf.load(CONF / "hydra/sweeper/pruner/halving.yaml")
    study, pruned = optuna.create_study(pruner=made(node, **change)), set()
    for value in np.random.default_rng(0).permutation(12).tolist():
        trial = study.ask()
        for epoch in range(1, 20):
            trial.report(value, epoch)
            if trial.should_prune():
                pruned.add(epoch)
                break
    assert pruned == rungs


def test_accounts_and_requeues_reach_slurm(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    from spectangle.sweeps.submitted import _executor

    options: Any = OmegaConf.to_container(OmegaConf.load(CONF / "hydra/launcher/slurm.yaml"))
    options |= {"account": "stars", "requeues": 3}
    assert sbatch_options(options)["account"] == "stars"
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 1))
    executor = _executor(options, tmp_path)._executor
    assert executor.parameters["account"] == "stars" and executor.max_num_timeout == 3


# ---------------------------------------------------------------------- all of them


def leaves(node: Any, name: str = "") -> list[str]:
    """Last names of the keys of a config that hold values."""
    if isinstance(node, DictConfig) and (len(node) or not name):
        keys = [key for key in node if key not in ("defaults", "hydra")]  # Hydra's own
        return [leaf for key in keys for leaf in leaves(node._get_node(key), str(key))]
    return [name]


def test_every_option_is_named_in_a_test():
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))))
    files = [path for path in CONF.rglob("*.yaml") if "job_logging" not in path.parts]
    unnamed = [f"{path}: {key}" for path in files for key in leaves(OmegaConf.load(path)) if key not in words]
    assert not unnamed, "no test names these keys of conf/; write one that fails where the key has no effect"
