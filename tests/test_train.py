"""train.py as a user runs it: a run folder, a resumed run, and sentences for what goes wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT, Command, run_train

from spectangle.errors import SpectangleError
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run

TINY = [
    "data=survey",
    "model=tiny",
    "threads=1",
    "lambdas=first_pair",
    "regressor.epochs=3",
    "probes=quick",
    "data.batch_size=64",
    "callbacks.figures=null",
]
EPOCHS = "trainer.max_epochs=30"  # some seconds: time enough to interrupt it


@pytest.fixture
def train(monkeypatch, capsys, toy_survey):
    command = Command(monkeypatch, capsys)
    return lambda *arguments: command("train", f"data.path={toy_survey}", *TINY, *arguments)


@pytest.fixture(scope="module")
def finished(toy_survey, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    run_train(f"data.path={toy_survey}", *TINY, EPOCHS, f"hydra.run.dir={folder}")
    return folder


def start(folder: Path, survey: Path, *arguments: str) -> subprocess.Popen:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"data.path={survey}",
        *TINY,
        f"hydra.run.dir={folder}",
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def comparable(folder: Path) -> dict[str, float]:
    return {key: value for key, value in Run(folder).metrics.items() if not key.startswith(("time/", "memory/"))}


def test_a_run_explains_itself(finished):
    run = Run(finished)
    assert {"teff", "logg", "m_h", "alpha_fe"} == set(run.config["lambdas"])
    assert run.manifest["seed"] == 0 and len(run.manifest["survey"]["content_hash"]) == 64
    assert run.manifest["packages"]["torch"] and "git" in run.manifest
    assert [row["epoch"] for row in run.history] == list(range(30))
    assert {
        "train/reconstruction",
        "val/reconstruction",
        "val/discriminator/teff",
        "val/discriminator_gain/m_h",
    } <= set(run.history[-1])
    for label in ("teff", "logg", "m_h", "alpha_fe"):
        for path in (
            f"test/latent/{label}/mae",
            f"test/spectra/{label}/sigma_mad",
            f"probe/{label}/r2",
            f"disentanglement/{label}",
        ):
            assert path in run.metrics
    assert "excess/m_h" in run.metrics and "excess/teff" not in run.metrics
    log = (finished / "train.log").read_text()
    assert "teff entangled (-1)" in log and "in the paper's unit" in log and "epoch 30/30" in log and "MAE" in log
    assert not list(finished.rglob("*.part"))


def test_same_seed_same_numbers_and_a_finished_run_is_only_read(finished, train, tmp_path):
    code, out, _ = train(EPOCHS, f"hydra.run.dir={tmp_path}")
    assert code == 0 and comparable(tmp_path) == comparable(finished)
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    code, out, _ = train(EPOCHS, f"hydra.run.dir={tmp_path}")
    assert code == 0 and "finished already" in out and (tmp_path / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_to_the_same_numbers(finished, toy_survey, tmp_path, monkeypatch, capsys, kill):
    process = start(tmp_path, toy_survey, EPOCHS)
    wait_for(lambda: len(Run(tmp_path, must_exist=False).history) >= 2, process)
    process.send_signal(kill)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0 and not (tmp_path / "metrics.json").exists(), output
    code, out, err = Command(monkeypatch, capsys)("train", f"resume={tmp_path}")
    assert code == 0 and "resumed from" in out, err
    assert comparable(tmp_path) == comparable(finished)
    assert [row["epoch"] for row in Run(tmp_path).history] == list(range(30))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_goes_on_with_other_threads_says_so(finished, train, tmp_path, threads):
    run = Run(shutil.copytree(finished, tmp_path / "run"))
    (run.path / "metrics.json").unlink()
    assert run.manifest["threads"] == 1 and run.manifest["starts"][-1]["threads"] == 1
    code, out, err = train(EPOCHS, f"hydra.run.dir={run.path}", f"threads={threads}")
    assert code == 0 and run.manifest["threads"] == threads, err
    words = " ".join((out + err).split())
    assert ("trained with threads=1 and goes on with threads=2" in words) == (threads == 2)


def wait_for(condition, process, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sweep=table1", "hydra.sweeper.params={+model.new: 1}"], "To append to your config use +hydra"),
        (["sweep=table1", "sweep.packs=3"], "There is no key sweep.packs. Did you mean 'pack'?"),
        (["sweep.pack=3"], "sweep.pack is a key of sweeps, and this is none: name one (sweep=table1)"),
        (["trial_seeds=[0,1]"], "trial_seeds is a key of sweeps"),
        (["model.laten=3"], "There is no config key 'model.laten'. Did you mean 'model.latent'?"),
        (["modell.latent=3"], "Did you mean 'model.latent'?"),
        (["lambdas=frist_pair"], "lambdas=frist_pair does not exist. Did you mean 'first_pair'?"),
        (["+lambdas.vmic=0.1"], "lambdas names vmic, but the survey's labels are teff, logg, m_h, alpha_fe"),
        (["lambdas.vmic=0.1"], "Name these instead: lambdas=none lambdas.teff=-1 lambdas.others=1"),
        (["bins.count=1"], "bins.count is 1"),
        (["trainer.devices=2"], "trainer.devices is 2; a run trains on one device"),
        (["trainer.precision=bf16-true"], "trainer.precision is bf16-true; a run trains in 32-true, 64-true"),
        (["model.latent=0"], "model.latent is 0"),
        (["data.path=/nowhere/stars.h5"], "There is no survey file /nowhere/stars.h5"),
        (["data.labels=[teff,age]"], "has no label 'age'"),
        (["adversary.objective=hinge"], "adversary.objective is 'hinge'"),
        (["optimizer.lr_end=step"], "optimizer.lr_end is step and"),
        (["optimizer.discriminator_lr_end=2"], "discriminator_lr_end 2; they are fractions"),
        (["optimizer.lr=1e20"], "diverged in epoch 0"),
        (["objective=val/nonsense"], "objective names val/nonsense"),
        (["resume=/nowhere"], "is not a run folder"),
        (["lambdas"], "'lambdas' is no override: "),
        (["model.hidden=[1"], "is no override: "),
        (["lambdas=[1]"], "Hydra cannot make a config of"),
        (["lambdas=3"], "Config group override must be a string"),
        (["-cn", "paper_grd"], "Did you mean 'paper_grid'? Sweeps are named by sweep=NAME."),
        (["-cd", str(ROOT / "sweeps"), "-cn", "frontie"], "Did you mean 'frontier'?"),
        (["sweep=frontie"], "There is no sweep 'frontie'. Did you mean 'frontier'?"),
        (["trainer.max_epochs=0"], "trainer.max_epochs is 0"),
        (["callbacks.checkpoint.monitor=val/nonsense"], "callbacks.checkpoint.monitor names val/nonsense, which this"),
        (["objective=val/reconstructoin"], "does not measure. Did you mean 'val/reconstruction'?"),
        (["+optimizer.lrr=1"], "There is no key optimizer.lrr: nothing would read it. Did you mean 'lr'?"),
        (["+optimizer.momentum=0.9"], "There is no key optimizer.momentum: nothing would read it. There are: betas"),
        (
            ["+labels.foo=1"],
            "There is no key labels.foo: nothing would read it. There are: attributes, require, weight",
        ),
        (["+logger.foo=1"], "There is no key logger.foo: nothing would read it."),
        (["+experiment.foo=1"], "There is no key experiment.foo"),
        (["+model.extra=1"], "There is no key model.extra: nothing would read it. There are: adversary"),
        (
            ["+model.bins.x=1"],
            "There is no key bins.x: nothing would read it. There are: count, entangled_count, strategy",
        ),
        (["+bins.counts=4"], "Did you mean 'count'?"),
        (["+adversary.hiden=3"], "Did you mean 'hidden'?"),
        (["+adversary.latent=3"], "There is no key adversary.latent"),
        (["+data.fld=5"], "There is no key data.fld: nothing would read it. Did you mean 'fold'?"),
        (["+data.attribute=[x]"], "Did you mean 'attributes'?"),
        (
            ["+trainer.max_epoch=3"],
            "There is no key trainer.max_epoch: nothing would read it. Did you mean 'max_epochs'?",
        ),
        (["+callbacks.checkpoint.foo=1"], "There is no key callbacks.checkpoint.foo"),
        (["+callbacks.last.foo=1"], "There is no key callbacks.last.foo: nothing would read it. There are: dirpath"),
        (["+callbacks.progress.foo=1"], "There is no key callbacks.progress.foo: nothing would read it."),
        (["+callbacks.mine={_target_: lightning.pytorch.callbacks.Timer, duratoin: x}"], "Did you mean 'duration'?"),
        (["+callbacks.mine={_target_: lightning.pytorch.callbacks.Tmer}"], "callbacks.mine builds lightning.pytorch"),
        (["+callbacks.mine=3"], "callbacks.mine is 3 in the config; it must say what it builds"),
        (
            ["model.latent=${nothing}"],
            "model.latent refers to what is not there: Interpolation key 'nothing' not found",
        ),
        (["callbacks.checkpoint.mode=abc"], "Lightning cannot train with this config"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_a_sentence(train, tmp_path, arguments, sentence):
    code, out, err = train("trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}", *arguments)
    assert code == 1
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and sentence in errors[0]
    assert "Traceback" not in err and "Error executing job" not in err
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "run").exists() or (tmp_path / "run" / "manifest.json").exists()


def test_a_survey_of_other_labels_and_pixels_needs_configuration_alone(monkeypatch, capsys, tmp_path):
    from conftest import write_toy_survey

    survey = write_toy_survey(tmp_path / "other.h5", n=200, n_pixels=17, units={"age": "Gyr", "c_fe": "dex"})
    arguments = [
        *TINY[:3],
        *TINY[4:],
        "trainer.max_epochs=1",
        f"data.path={survey}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    arguments += ["lambdas=none", "lambdas.age=-0.001", "lambdas.c_fe=0.001"]
    code, out, err = Command(monkeypatch, capsys)("train", *arguments)
    assert code == 0, err
    assert "age entangled (-0.001), c_fe disentangled (+0.001)" in out
    assert json.loads((tmp_path / "run/metrics.json").read_text())["excess/c_fe"] < 1


def test_validation_scores_during_training_can_be_monitored(train, tmp_path):
    code, _, err = train(
        "trainer.max_epochs=2",
        f"hydra.run.dir={tmp_path}",
        "callbacks.regressor.every_n_epochs=1",
        "callbacks.probes.every_n_epochs=2",
        "objective=[val/latent/teff/mae,val/probe/m_h/r2]",
    )
    assert code == 0, err
    history = Run(tmp_path).history
    assert all("val/latent/teff/mae" in row for row in history)
    assert "val/probe/m_h/r2" in history[1] and "val/probe/m_h/r2" not in history[0]


def test_a_checkpoint_waits_for_the_epoch_that_measures_what_it_monitors(train, tmp_path):
    options = ["callbacks.probes.every_n_epochs=2", "callbacks.checkpoint.monitor=val/largest_excess"]
    code, _, err = train("trainer.max_epochs=3", f"hydra.run.dir={tmp_path}", "lambdas=first_pair", *options)
    assert code == 0, err
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch/best"] == 1


def test_a_run_that_keeps_no_best_checkpoint_is_told_by_its_last_epoch(train, tmp_path):
    code, _, err = train("trainer.max_epochs=2", f"hydra.run.dir={tmp_path}", "callbacks.checkpoint=null")
    assert code == 0, err
    metrics, last = json.loads((tmp_path / "metrics.json").read_text()), Run(tmp_path).history[-1]
    assert metrics["val/reconstruction"] == last["val/reconstruction"] and metrics["epoch/best"] == 1


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("regressor.loss=cubic", "The regressor's loss is 'cubic'"),
        ("+callbacks.regressor.paper.alpha=-1", "'alpha'"),
    ],
)
def test_a_regressor_that_cannot_be_fitted_costs_no_training(train, tmp_path, option, sentence):
    code, out, err = train(f"hydra.run.dir={tmp_path}", option)
    assert code != 0 and sentence in err and "epoch" not in out


SHOWS = {
    "model.conditioning=synthetic": lambda model: (
        model.encoder.projection.weight.shape[1] == model.hparams["n_pixels"] + 4
    ),
    "model.conditioning=none": lambda model: model.decoder.layers[0].in_features == model.hparams["latent"],
    "model.noise_level=false": lambda model: model.encoder.projection.n_outputs == 10 + 10,
    "model.pls_components=3": lambda model: model.encoder.projection.pls == 3,
    "model.principal_components=4": lambda model: (
        model.encoder.projection.pca == 4 and model.encoder.projection.n_outputs == 10 + 4 + 1
    ),
    "experiment=paper_literal": lambda model: (
        bool((model.flux_scaler.scale == 1).all()) and model.channel is None and model.encoder.projection is None
    ),
    "trainer.precision=bf16-mixed": lambda model: next(model.parameters()).dtype == torch.float32,
}


@pytest.mark.parametrize("option", SHOWS)
def test_variants_train(train, tmp_path, option):
    """Each variant is in the model that was trained, and the model learns."""
    quick = ["callbacks.probes=null", "regressor=averaged"]  # whatever an experiment asks for: its epochs are set
    code, _, err = train("trainer.max_epochs=3", f"hydra.run.dir={tmp_path}", *quick, option)
    assert code == 0, err
    errors = [row["train/reconstruction"] for row in Run(tmp_path).history]
    assert SHOWS[option](load_autoencoder(Run(tmp_path))) and errors[0] > errors[1] > errors[2]


def test_a_checkpoint_of_another_version_is_a_sentence(toy_runs, tmp_path):
    """Options had other names: nothing is read wrongly, and the sentence says which version made the run."""
    run = Run(shutil.copytree(toy_runs[0], tmp_path / "run"))
    checkpoint = torch.load(run.best_checkpoint, weights_only=True)
    checkpoint["hyper_parameters"]["adversary"]["condition_on"] = "kept"
    torch.save(checkpoint, run.best_checkpoint)
    with pytest.raises(SpectangleError, match="does not fit this version of spectangle .*the run was made by"):
        load_autoencoder(run)


@pytest.mark.parametrize(("key", "hint"), [("hydra.foo", ""), ("hydra.jobs.x", " Did you mean 'job'?")])
def test_a_key_that_hydra_does_not_have_is_refused(train, tmp_path, key, hint):
    code, _, err = train(f"+{key}=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 1 and f"error: '{key}' was added with a plus, and nothing reads it.{hint} `--cfg" in err
