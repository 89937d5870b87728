"""Packs: several models trained as one are what each of them would be alone."""

import copy
import gc
import logging
import os
import pickle
import signal
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from threading import Event, Thread, Timer
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from commands import run_train
from conftest import TINY
from test_conf import composed
from torch.utils._python_dispatch import TorchDispatchMode

from spectangle import devices
from spectangle.data.module import SpectraDataModule
from spectangle.data.stars import star_order
from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.build import build_model
from spectangle.packs.captured import Replay
from spectangle.packs.line import PackLine, begin_fit, in_pack, joins_pack
from spectangle.packs.member import Member
from spectangle.packs.network_fits import NetworkFit
from spectangle.packs.own_stack import OwnStack
from spectangle.packs.pack_key import pack_key
from spectangle.packs.pack_server import PackServer
from spectangle.packs.shared_stars import model_for, shared_stars, stars_of
from spectangle.packs.stack import Stack
from spectangle.packs.stacked_adamw import StackedGroup, adamw_step
from spectangle.packs.stopped_fits import StoppedFit
from spectangle.packs.wire import receive, send
from spectangle.processes import free_memory_gb
from spectangle.runs.folder import Run
from spectangle.runs.sweep_link import link
from spectangle.sweeps.liveness import WorkerRecord
from spectangle.sweeps.pack import pack_size
from spectangle.sweeps.plan import Options
from spectangle.sweeps.trial import Attempt
from spectangle.sweeps.worker import Worker
from spectangle.training.resumption import Continuity

EPOCHS = 3
PAIR = {"teff": -1.0, "logg": -1.0, "m_h": 1.0, "alpha_fe": 1.0}
WEAKER = {"teff": -0.3, "logg": -2.0, "m_h": 0.5, "alpha_fe": 3.0}
DEFAULT = {"condition_on": "entangled", "entangle_with": "regression", "objective": "capped", "discriminator_steps": 2}
NOISY = {"latent_rate": 1.0, "input_noise": 0.5}


@pytest.fixture
def data(toy_survey):
    data = SpectraDataModule(str(toy_survey), batch_size=128)
    data.setup()
    return data


def build(data, seed=0, lambdas=PAIR, adversary=None, **options):
    torch.manual_seed(seed)
    model = DisentanglingAutoencoder(
        data.n_pixels,
        list(data.labels),
        lambdas=lambdas,
        bins={"count": 5},
        adversary={"hidden": [16, 8]} | (DEFAULT if adversary is None else adversary),
        **{"latent": 5, "hidden": [16]} | options,
    )
    model.calibrate(data.train.flux, data.train.targets)
    data.classify_with(model.adversary.classify)
    return model


def trainer(epochs=EPOCHS, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet, **options)


def alone(model, data, seed, precision="64-true"):
    """The model as Lightning trains it."""
    model = copy.deepcopy(model)
    data.seed = seed
    used = trainer(precision=precision)
    used.fit(model, datamodule=data)
    return model, used


def packed(models, data, epochs=EPOCHS):
    """The models as a stack trains them, with seeds 0, 1, ..., and what it says of their last epoch."""
    models = [copy.deepcopy(model).double() for model in models]
    members = [Member.of(m, m.configure_optimizers(), seed, EPOCHS) for seed, m in enumerate(models)]
    stack = Stack(members, "64-true")
    for epoch in range(epochs):
        answers = stack.train_epoch(data.training_tensors, [epoch] * len(models), len(data.train_dataloader()))
    for member, answer in zip(stack.members, answers, strict=True):
        member.load(answer["state"], member.model.configure_optimizers())
    return models, answers


def assert_same(model, other, tolerance):
    """Parameters and running statistics agree to a fraction of the largest value of each tensor."""
    there = other.state_dict()
    learnt = [name for name, _ in model.named_parameters()]
    learnt += [name for name in there if name.endswith(("running_mean", "running_var"))]
    for name, value in model.state_dict().items():
        if name in learnt:
            error = (value - there[name]).abs().max() / value.abs().max().clamp(min=1e-3)
            assert error < tolerance, (name, float(error))


VARIANTS = {
    "the default": {**NOISY, "pls_components": 3, "principal_components": 4, "noise_level": True},
    "the paper's": {"adversary": {"objective": "neg_ce", "lambda_unit": "flux", "discriminator_steps": 1}},
    "a uniform aim, residuals": {"adversary": {"objective": "uniform", "condition_on": "residual"}, **NOISY},
    "convolutions, normalised": {"adversary": {"kind": "conv", "batch_norm": True, "ensemble": 2}},
    "binary, one step": {"adversary": {"loss": "binary", "schedule": "linear"}, "latent_noise": 0.1},
    "a joint one": {"adversary": {"discriminators": "joint"}, "lambdas": {"m_h": 1.0, "teff": 1.0}},
    "an encoder with labels": {"conditioning": "synthetic", "batch_norm": True, "adversary": {}},
    "nothing to lose": {
        "lambdas": {},
        "adversary": {},
        "conditioning": "none",
        "latent_activation": "sigmoid",
        "latent_norm": "none",
    },
}


@pytest.mark.filterwarnings("error:There is a performance drop")  # vmap has no rule and loops
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_each_member_is_what_it_is_alone(data, variant):
    """In double precision, where the order of sums is worth 1e-16: the training is chaotic, and multiplies a difference
    by about ten in each batch, so that single precision agrees for some batches only.
    """
    rates = [{"lr": 1e-3}, {"lr": 5e-3, "betas": [0.8, 0.9], "weight_decay": 0.1, "discriminator_lr": 3e-3}]
    models = [build(data, seed, **variant, optimizer=rates[seed]) for seed in range(2)]
    found, answers = packed(models, data)
    for seed, (model, answer) in enumerate(zip(found, answers, strict=True)):
        expected, used = alone(models[seed], data, seed)
        assert_same(expected, model, 1e-6)
        loss = float(used.callback_metrics["train/loss"])
        assert answer["sums"]["loss"] / answer["counts"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert not torch.allclose(*(model.decoder.layers[-1].bias for model in found))


def test_members_may_differ_in_all_that_does_not_change_their_shape(data):
    differ = [
        {"lambdas": PAIR, **NOISY, "optimizer": {"sigma_lr": 1e-2}, "adversary": DEFAULT},
        {
            "lambdas": WEAKER,
            "latent_rate": 3.0,
            "input_noise": 1.5,
            "reconstruction_weight": 0.5,
            "optimizer": {"sigma_lr": 1e-3, "lr": 3e-3, "lr_end": 0.5, "discriminator_betas": [0.9, 0.99]},
            "adversary": DEFAULT | {"schedule": "linear", "entangled_scale": 2.0, "lambda_scale": 0.5},
        },
    ]
    models = [build(data, seed, **options) for seed, options in enumerate(differ)]
    for seed, model in enumerate(packed(models, data)[0]):
        assert_same(alone(models[seed], data, seed)[0], model, 1e-6)


def test_missing_labels_and_instruments_train_in_packs(data):
    data.train.labels[::3, 1] = torch.nan
    data.train.attributes = torch.arange(len(data.train)).remainder(2).float()[:, None]
    data.validation.attributes = torch.zeros(len(data.validation), 1)
    data.test.attributes = torch.zeros(len(data.test), 1)
    weights = torch.rand(len(data.train), 5, generator=torch.Generator().manual_seed(0))
    data.train.weights = weights
    data.validation.weights = torch.ones(len(data.validation), 5)
    extra = {"incomplete": ["logg"], "attributes": {"instrument": 2}, "lambdas": PAIR | {"instrument": 1.0}}
    models = [build(data, seed, **extra, **NOISY) for seed in range(2)]
    for seed, model in enumerate(packed(models, data)[0]):
        assert_same(alone(models[seed], data, seed)[0], model, 1e-6)


def test_adamw_of_all_members_at_once_is_torchs(data):
    """What a GPU takes, beside what a CPU takes and ``torch.optim.AdamW`` itself, with settings of their own."""
    settings = [{"lr": 1e-3}, {"lr": 5e-2, "betas": [0.8, 0.9], "weight_decay": 0.3}, {"lr": 1e-4, "lr_end": 0.5}]
    models = [build(data, seed, optimizer=settings[seed]).double() for seed in range(3)]
    optimizers = [model.configure_optimizers() for model in models]
    rates = [options["lr"] * 0.7 for options in settings]
    members = [Member.of(m, o, 0, 1) for m, o in zip(models, optimizers, strict=True)]
    one, other = (StackedGroup([m.autoencoder[0] for m in members], together) for together in (False, True))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradients = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in one.parameters.values()]
        with torch.no_grad():
            one.step_by_member(gradients, rates)
            other.step_together(gradients, torch.tensor(rates, dtype=torch.float64))
        for m, (model, (optimizer, _)) in enumerate(zip(models, optimizers, strict=True)):
            named = dict(model.named_parameters())
            for name, gradient in zip(one.parameters, gradients, strict=True):
                named[name].grad = gradient[m].clone()
            optimizer.param_groups[0]["lr"] = rates[m]
            optimizer.step()
    for m, model in enumerate(models):
        for name, value in model.named_parameters():
            if name in one.parameters:
                torch.testing.assert_close(one.parameters[name][m], value)
                torch.testing.assert_close(other.parameters[name][m], value)
    assert (other.steps == 5).all() and (one.steps == 5).all()
    for kind, there in zip(one.on_host(), other.on_host(), strict=True):
        for value, again in zip(kind, there, strict=True):
            np.testing.assert_allclose(value, again, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_a_member_that_has_learnt_goes_on_with_what_adam_remembers(data, together):
    """A run that is resumed into a pack: means, squares and number of its steps are those of its checkpoint."""
    model = build(data, optimizer={"lr": 1e-2, "weight_decay": 0.1}).double()
    optimizer, _ = optimizers = model.configure_optimizers()
    generator = torch.Generator().manual_seed(0)
    parameters, names = optimizer.param_groups[0]["params"], {p: name for name, p in model.named_parameters()}

    def step():
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()
        return {names[parameter]: parameter.grad for parameter in parameters}

    for _ in range(3):
        step()
    stacked = StackedGroup([Member.of(model, optimizers, 0, 1).autoencoder[0]], together)  # copies
    for _ in range(2):
        gradients = step()
        stacked.step([gradients[name][None] for name in stacked.parameters], torch.tensor([1e-2], dtype=torch.float64))
    for parameter in parameters:
        torch.testing.assert_close(stacked.parameters[names[parameter]][0], parameter)
    assert stacked.on_host()[-1][0].tolist() == [5]


def test_members_of_one_rate_take_torchs_own_step_together(data, monkeypatch):
    """Also when some have taken more steps than others; with one rate and settings of their own they do not."""
    asked = []

    def noted(values, *given, **settings):
        asked.append(len(values))
        adamw_step(values, *given, **settings)

    monkeypatch.setattr("spectangle.packs.stacked_adamw.adamw_step", noted)
    for decays, expected in (((0.1, 0.1, 0.1), 3), ((0.1, 0.0, 0.1), None)):
        models = [build(data, seed, optimizer={"lr": 1e-2, "weight_decay": decays[seed]}) for seed in range(3)]
        members = [Member.of(model, model.configure_optimizers(), 0, 1) for model in models]
        for seed, member in enumerate(members):
            member.autoencoder[0].step += 5 * seed
        one, other = (StackedGroup([m.autoencoder[0] for m in members], together) for together in (False, True))
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            gradients = [torch.randn(v.shape, generator=generator) for v in one.parameters.values()]
            one.step(gradients, torch.tensor([0.02] * 3, dtype=torch.float64))
            asked.clear()
            other.step(gradients, torch.tensor([0.02], dtype=torch.float64))
            assert asked == ([] if expected is None else [expected])
        assert other.steps[:, 0].tolist() == [3, 8, 13]
        for kind, there in zip(one.on_host(), other.on_host(), strict=True):
            for value, again in zip(kind, there, strict=True):
                np.testing.assert_allclose(value, again, rtol=1e-4, atol=1e-6)


class FromTheHost(TorchDispatchMode):
    """Note where numbers pass between the host and a device: what a GPU would be waited for, and what no CUDA graph can
    capture.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.lift_fresh, torch.ops.aten._local_scalar_dense):
            ours = [frame for frame in traceback.extract_stack() if "/spectangle/" in frame.filename]
            self.found.append(f"{ours[-1].filename}:{ours[-1].lineno}")
        return function(*args, **(kwargs or {}))


def test_a_step_that_cannot_be_captured_is_taken_as_it_is(caplog, monkeypatch):
    """There is no GPU here, so that nothing can be captured at all: test_gpu.py breaks a capture on one."""
    taken = []

    def twice(value):
        taken.append(float(value))
        return {"twice": 2 * value}

    replay = Replay(torch.device("cuda"))
    monkeypatch.setattr(Replay, "captures", True)
    monkeypatch.setattr(Replay, "failed", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", failing := Failing())
    found = [float(replay(twice, torch.tensor(float(i)))["twice"]) for i in range(5)]
    assert found == [0.0, 2.0, 4.0, 6.0, 8.0] and taken == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert failing.calls == 1 and gc.isenabled() and caplog.text.count("not captured as a CUDA graph") == 1
    assert len(Replay.failed) == 1 and not Replay.captures


def test_a_stack_that_is_dropped_frees_its_memory_at_once(data):
    models = [build(data, seed, **NOISY) for seed in range(2)]
    stack = weakref.ref(kept := Stack([Member.of(model, model.configure_optimizers(), 0, 1) for model in models]))
    gc.disable()
    try:
        kept.train_epoch(data.training_tensors, [0, 0], 2)
        del kept
        assert stack() is None
    finally:
        gc.enable()


class Failing:
    calls = 0

    def __call__(self, *given, **options):
        self.calls += 1
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


INCOMPLETE = {"incomplete": ["logg"], "lambdas": {"m_h": 1.0, "teff": -1.0, "logg": -1.0}, **NOISY}


@pytest.mark.parametrize("variant", [*VARIANTS.values(), INCOMPLETE], ids=[*VARIANTS.keys(), "missing labels"])
def test_a_step_asks_nothing_of_the_host(data, variant, monkeypatch):
    as_on_a_gpu = lambda groups, together: StackedGroup(groups, together=True)  # noqa: E731
    monkeypatch.setattr("spectangle.packs.stack.StackedGroup", as_on_a_gpu)
    models = [build(data, seed, **variant) for seed in range(2)]
    stack = Stack([Member.of(model, model.configure_optimizers(), 0, 1) for model in models])
    host = FromTheHost()

    def watched(arithmetic, *inputs):
        with host:
            return arithmetic(*inputs)

    stack.replay = watched
    batch = [tensor[torch.arange(64).expand(2, -1)] for tensor in data.training_tensors]
    found = stack.step(tuple(batch), [torch.Generator().manual_seed(seed) for seed in range(2)], [0.1, 0.2])
    assert torch.isfinite(found["loss"]).all() and not host.found


@pytest.mark.parametrize(
    "other",
    [
        {"latent": 6},
        {"latent_activation": "sigmoid"},
        {"lambdas": {"teff": 1.0, "logg": -1.0, "m_h": 1.0, "alpha_fe": 1.0}},
        {"input_noise": 0.0},
        {"adversary": DEFAULT | {"objective": "uniform"}},
        {"adversary": DEFAULT | {"discriminator_steps": 3}},
    ],
)
def test_models_of_different_shapes_do_not_stack(data, other):
    models = [build(data, **NOISY), build(data, **NOISY | other)]
    with pytest.raises(SpectangleError, match="different shapes"):
        Stack([Member.of(model, model.configure_optimizers(), 0, 1) for model in models])


def test_not_a_number_stays_with_its_member(data):
    models = [build(data, seed, **NOISY) for seed in range(3)]
    with torch.no_grad():
        models[1].encoder.layers[0].weight[0, 0] = torch.nan
    found, answers = packed(models, data)
    losses = [float(answer["sums"]["loss"]) for answer in answers]
    assert [loss == loss for loss in losses] == [True, False, True]
    assert_same(alone(models[2], data, 2)[0], found[2], 1e-6)


# ---------------------------------------------------------------------- runs and their pack


def test_what_was_claimed_for_a_pack_trains_in_one_whatever_memory_is_free_then(monkeypatch, tmp_path):
    """Claims that were many for a pack would start all at once without one."""
    rooms, worked = iter([3, 1]), []
    monkeypatch.setattr("spectangle.sweeps.worker.pack_size", lambda plan, workers: next(rooms))
    monkeypatch.setattr("spectangle.sweeps.worker.Study", lambda plan: study)
    monkeypatch.setattr("spectangle.sweeps.worker.ending_signals", lambda *more: ())
    monkeypatch.setattr(gc, "freeze", lambda: None)
    claims = [SimpleNamespace(params={"seed": seed}) for seed in range(3)]
    study = SimpleNamespace(done=False, claim=lambda *given: claims.pop() if claims else None)
    options = Options(pack="auto", preload=[])
    plan = SimpleNamespace(folder=tmp_path, options=options, per_pack=lambda runs: runs)
    worker = Worker(plan, SimpleNamespace())  # pyright: ignore

    def work_on(study, claims, room):
        worked.append((len(claims), room))
        worker.stopping = "seen"

    worker._work_on = work_on
    worker.work()
    assert worked == [(3, 3)]


def test_a_worker_that_reads_stars_lives_and_can_be_told_to_stop(tmp_path, monkeypatch):
    @contextmanager
    def slow(compose):
        time.sleep(20)
        yield

    monkeypatch.setattr("spectangle.sweeps.worker.shared_stars", slow)
    worker = Worker.__new__(Worker)
    worker.record = WorkerRecord(tmp_path, heartbeat_s=0.1)
    os.utime(worker.record.path, (0, 0))
    worker.stopping, worker.plan = None, SimpleNamespace(options=SimpleNamespace(trial_timeout_min=None))  # pyright: ignore
    Timer(4.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    monkeypatch.setattr("spectangle.sweeps.worker.READING_MIN", 2 / 60)
    before = signal.signal(signal.SIGTERM, worker._stop)
    try:
        with ExitStack() as held:
            worker._read_stars(SimpleNamespace(overrides=[]), held)  # pyright: ignore
    finally:
        signal.signal(signal.SIGTERM, before)
    assert worker.stopping == "the worker was told to stop" and 2 < time.monotonic() - start < 15
    assert 0 < worker.record.path.stat().st_mtime < time.time() - 1  # no sign of life for ever


def test_what_is_tried_before_the_training_leaves_a_gpu_alone_too(toy_survey, tmp_path, monkeypatch):
    """A config's regressor is tried on a few stars first, in each of the runs of a pack, whose GPU the pack has."""
    asked = []
    monkeypatch.setattr(devices, "_accelerator", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(asked.append(devices._accelerator)))
    options = [*TINY, "trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.probes=null"]
    run_train(*options, f"data.path={toy_survey}", f"hydra.run.dir={tmp_path}")
    assert set(asked) <= {"cpu"}


@pytest.mark.parametrize(
    ("own", "is_shared"),
    [
        ([], True),
        (["seed=3", "lambdas=second_pair"], True),
        (["data.n_stars=300"], False),
        (["labels.weight=errors"], False),
    ],
)
def test_the_runs_of_a_pack_share_their_stars(toy_survey, own, is_shared, monkeypatch):
    monkeypatch.setattr("spectangle.packs.shared_stars.use_threads", lambda count: None)
    survey = ["data=survey", f"data.path={toy_survey}"]
    with shared_stars(lambda: composed(*survey)):
        data, cfg = stars_of(composed(*survey)), composed(*survey, *own)
        assert (stars_of(cfg) is data) is is_shared and len(data.train) == 292
        assert stars_of(cfg).seed == cfg.seed
    assert stars_of(composed(*survey)) is not data


@pytest.mark.parametrize(
    ("own", "is_copied"),
    [
        ([], True),
        (["seed=3", "adversary.lambda_scale=2", "optimizer.lr=0.1", "+lambdas.m_h=0.5"], True),
        (["adversary.condition_on=residual"], False),
        (["lambdas=second_pair"], False),
        (["+lambdas.m_h=-1"], False),
        (["bins.count=7"], False),
        (["model.noise_level=false"], False),
        (["model.flux_scaling=pixel"], False),
    ],
)
@pytest.mark.parametrize("base", [[], ["adversary.condition_on=residual"], ["adversary.entangle_with=regression"]])
def test_the_runs_of_a_pack_share_what_is_fitted_before_the_training(toy_survey, base, own, is_copied, monkeypatch):
    """Every parameter and buffer is what it is alone, whether it is copied or fitted anew."""
    survey = ["data=survey", f"data.path={toy_survey}", "lambdas=first_pair", *base]
    assert copied_and_alone(survey, own, monkeypatch) == (is_copied or own == base != [])


def test_a_joint_discriminator_is_built_by_each_run_of_a_pack(toy_survey, monkeypatch):
    joint = ["adversary.discriminators=joint", "lambdas=none", "+lambdas.m_h=1"]
    assert not copied_and_alone(["data=survey", f"data.path={toy_survey}", *joint], [], monkeypatch)


def copied_and_alone(survey, own, monkeypatch):
    """Build the model of a run in a pack whose first run has none of its own options, and the same alone: they are the
    same. Whether nothing was fitted for the one in the pack.
    """
    monkeypatch.setattr("spectangle.packs.shared_stars.use_threads", lambda count: None)
    fitted, calibrate = [], DisentanglingAutoencoder.calibrate
    monkeypatch.setattr(
        DisentanglingAutoencoder, "calibrate", lambda model, *given: fitted.append(model) or calibrate(model, *given)
    )
    models = []
    with shared_stars(lambda: composed(*survey)):
        cfg = composed(*survey, *own)
        data = stars_of(cfg)
        for like in (model_for(data), None):
            torch.manual_seed(cfg.seed)
            models.append(build_model(cfg, data, like))
    (packed, alone), tensors = models, [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
    assert tensors[0].keys() == tensors[1].keys() and packed.adversary.chance is not models[1].adversary.chance
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=0, atol=0, equal_nan=True, msg=name)
    stars = data.train.targets
    assert torch.equal(packed.adversary.classify(stars), alone.adversary.classify(stars))
    assert model_for(data) is None
    return len(fitted) == 2


def test_stars_that_cannot_be_read_are_left_to_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("spectangle.packs.shared_stars.use_threads", lambda count: None)
    with shared_stars(lambda: composed("data=survey", f"data.path={tmp_path / 'none.h5'}")) as nothing:
        assert nothing is None
        with pytest.raises(SpectangleError, match="none.h5"):
            stars_of(composed("data=survey", f"data.path={tmp_path / 'none.h5'}")).setup()


class Mortal(PackServer):
    """A pack that ends after some epochs."""

    epochs = 1000

    def _listen(self):
        self.epochs -= 1
        if self.epochs < 0:
            for pipe in list(self.pipes):
                self._forget(pipe)
        super()._listen()


class Serving:
    """A pack in a thread of this process, and lines to it."""

    def __init__(self, count, monkeypatch, epochs=1000):
        monkeypatch.setattr(signal, "signal", lambda *given: None)  # a thread may not
        monkeypatch.setattr("spectangle.packs.pack_server.use_threads", lambda threads: None)
        ends = [Pipe() for _ in range(count)]
        self.server = Mortal([here for here, _ in ends], threads=1)
        self.server.epochs = epochs
        self.lines = [PackLine(there) for _, there in ends]
        self.thread = Thread(target=self.server.serve, daemon=True)
        self.thread.start()


def survey_of(path, seed):
    data = SpectraDataModule(str(path), batch_size=256, seed=seed)
    data.setup()
    return data


def test_a_pack_holds_what_it_trains_once(data, monkeypatch):
    """Also when a run has left, whose part lay in one tensor with the others'."""
    server, kind = Serving(0, monkeypatch).server, "some"
    members = [Member.of(m := build(data, seed), m.configure_optimizers(), seed, 3) for seed in range(3)]
    server.members = dict(zip("abc", members, strict=True))
    memories = [weakref.ref(mean) for member in members for group in member.groups for mean in group.means]
    stack = weakref.ref(server._stack(kind, list("abc"), "32-true"))
    assert not any(memory() is not None for memory in memories)
    stacked = [weakref.ref(tensor) for group in stack().groups for kind in group.stacked[1:] for tensor in kind]
    del server.members["c"], members
    server._stack(kind, list("ab"), "32-true")
    gc.collect()
    assert stack() is None and not any(tensor() is not None for tensor in stacked)


@pytest.mark.parametrize("schedule", ["linear", "plateau"])
def test_a_run_trains_by_its_pack_and_one_that_leaves_stops_nobody(toy_survey, monkeypatch, schedule):
    """The second run ends after its first epoch."""
    serving = Serving(2, monkeypatch)
    data = [survey_of(toy_survey, seed) for seed in range(2)]
    adversary = DEFAULT | {"schedule": schedule, "plateau_steps": 2, "plateau_patience": 0}
    models = [build(data[seed], seed, **NOISY, adversary=adversary) for seed in range(2)]
    before = copy.deepcopy(models[0])
    trainers = [trainer(epochs=epochs) for epochs in (3, 1)]

    def run(seed):
        models[seed].pack = serving.lines[seed]
        trainers[seed].fit(models[seed], datamodule=data[seed])
        models[seed].pack.close()

    threads = [Thread(target=run, args=(seed,), daemon=True) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in (*threads, serving.thread):
        thread.join(60)
        assert not thread.is_alive()
    expected, reference = alone(before, data[0], 0, precision="32-true")
    assert trainers[0].global_step == reference.global_step
    assert expected.adversary.plateau[0] == models[0].adversary.plateau[0]
    assert_same(expected, models[0], 0.05)  # a chaotic training in single precision
    assert {"train/loss", "val/reconstruction", "train/discriminator/m_h"} <= trainers[0].callback_metrics.keys()
    state, there = (one.optimizers[1].state_dict() for one in (trainers[0], reference))
    assert state["param_groups"][0]["lr"] == there["param_groups"][0]["lr"]
    assert state["state"][0]["step"] == there["state"][0]["step"]


def ask(run, epoch):
    """Ask a pack for an epoch as a run does; return its answer."""
    send(run, {"epoch": epoch, "plateau": [0.0, float("inf"), 0.0]})
    return receive(run)


class Watched(PackServer):
    """A pack that writes down when it was asked for an epoch, and when it trained one."""

    def _train_round(self):
        self.events.append(f"asked {max(request['epoch'] for request in self.requests.values())}")
        super()._train_round()

    def _train_kind(self, kind, pipes, requests):
        self.events.append(f"trained {requests[0]['epoch']}")
        return super()._train_kind(kind, pipes, requests)


@pytest.mark.parametrize(
    ("schedule", "events"),
    [
        ("linear", ["asked 0", "trained 0", "trained 1", "asked 1", "trained 2", "asked 7"]),
        ("plateau", ["asked 0", "trained 0", "asked 1", "trained 1", "asked 7", "trained 2"]),
    ],
)
def test_the_next_epoch_is_trained_before_a_run_asks_for_it(data, monkeypatch, schedule, events):
    """Not after the last one, and not where an epoch decides on the next; a wrong guess is not handed out."""
    runs = [Pipe() for _ in range(2)]
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr("spectangle.packs.pack_server.use_threads", lambda threads: None)
    server = Watched([here for here, _ in runs], threads=1)
    server.events = []
    thread = Thread(target=server.serve, daemon=True)
    thread.start()
    for seed, (_, run) in enumerate(runs):
        model = build(data, seed, **NOISY, adversary=DEFAULT | {"schedule": schedule})
        member = Member.of(model, model.configure_optimizers(), seed, EPOCHS)
        send(run, {"member": member, "stars": "toy", "batches": 2, "precision": "32-true"})
        if receive(run)["send_stars"]:
            send(run, [tensor.numpy() for tensor in data.training_tensors])
    (_, first), (_, second) = runs
    for epoch in range(EPOCHS):
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(ask, (first, second), (epoch, epoch if epoch < 2 else 7)))
        assert "state" in answers[0] and ("alone" in answers[1]) == (schedule == "linear" and epoch == 2)
    first.close()
    second.close()
    thread.join(20)
    assert not thread.is_alive() and server.events == events


def test_a_run_whose_pack_ends_goes_on_alone(toy_survey, monkeypatch, caplog):
    """After its first epoch; a checkpoint of a packed run is one of any run."""
    serving = Serving(1, monkeypatch, epochs=1)
    data = survey_of(toy_survey, 0)
    model = build(data, **NOISY)
    before = copy.deepcopy(model)
    model.pack = serving.lines[0]
    trainer().fit(model, datamodule=data)
    assert "goes on alone: the process of the pack has ended" in caplog.text
    expected, _ = alone(before, data, 0, precision="32-true")
    assert_same(expected, model, 0.05)


class EverySecond:
    """What trains every second epoch of a model."""

    in_company = True

    def train_epoch(self, model):
        self.has_trained = model.current_epoch % 2 == 0
        sums = {"reconstruction": torch.ones(()), "loss": torch.ones(()), "discriminator": torch.ones(4)}
        return (sums, dict.fromkeys(sums, 1)) if self.has_trained else None


def test_batches_are_gathered_for_those_alone_who_read_them(toy_survey):
    """Whoever trained the epoch before: the model's own has every one of its stars."""
    seen: dict[int, list[torch.Tensor]] = {}

    class Notes(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.setdefault(trainer.current_epoch, []).append(batch[0])

    data = survey_of(toy_survey, 0)
    model = build(data, **NOISY)
    model.pack = EverySecond()
    trainer(epochs=4, callbacks=[Notes()]).fit(model, datamodule=data)
    flux = data.train.flux
    for epoch in range(4):
        order = star_order(len(flux), data.seed, epoch).tensor_split(len(seen[epoch]))
        gathered = [torch.equal(batch, flux[rows]) for batch, rows in zip(seen[epoch], order, strict=True)]
        assert all(gathered) if epoch % 2 else not any(gathered[1:]) and len(gathered) > 1


def test_a_run_alone_on_a_gpu_trains_by_a_stack_of_its_own(data, monkeypatch):
    """Here a CPU has the part of the GPU."""
    model, expected = build(data, **NOISY), build(data, **NOISY)
    expected, judge = alone(expected, data, 0)
    with in_pack(model, composed()):
        assert model.pack.places == ("cuda",) and not model.pack.in_company
        model.pack = pickle.loads(pickle.dumps(OwnStack(["cpu"])))
        ended = []
        monkeypatch.setattr(OwnStack, "end_training", lambda self: ended.append(self._stack.members))
        used = trainer(precision="64-true", callbacks=[Continuity(SimpleNamespace(), None)])  # pyright: ignore
        used.fit(model, datamodule=data)
    assert len(ended) == 1 and model.pack is None
    assert_same(expected, model, 1e-6)
    assert used.global_step == judge.global_step
    assert used.callback_metrics["train/loss"] == pytest.approx(float(judge.callback_metrics["train/loss"]), rel=1e-5)


def test_what_a_callback_changes_is_not_lost_to_a_stack_of_its_own(data):
    class Sets(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.input_noise = 0.1
                with torch.no_grad():
                    pl_module.decoder.layers[-1].bias.fill_(7.0)
                    pl_module.encoder.norm.running_mean.fill_(3.0)

    found = []
    for pack in (OwnStack(["cpu"]), None):
        model = build(data, **NOISY)
        model.pack = pack
        trainer(2, precision="64-true", callbacks=[Sets()]).fit(model, datamodule=data)
        found.append(model)
    assert_same(found[1], found[0], 1e-6)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.precision=16-mixed",
        "+trainer.detect_anomaly=true",
        "+callbacks.checkpoint.every_n_train_steps=5",
    ],
)
def test_what_no_stack_can_train_trains_by_itself(data, override):
    model = build(data)
    with in_pack(model, composed(override)):
        assert model.pack is None


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.dropout=0.1", "model.dropout"),
        ("adversary.objective=flipped", "adversary.objective=flipped"),
        ("+trainer.limit_train_batches=1", "the trainer limits the batches"),
        ("trainer.precision=16-mixed", "packs train in 32-true or"),
    ],
)
def test_what_no_pack_can_train_trains_alone(caplog, monkeypatch, override, reason):
    here, there = Pipe()
    monkeypatch.setattr(link, "pack", there)
    assert joins_pack(composed()) and joins_pack(composed("trainer.precision=32"))
    assert not joins_pack(composed(override)) and link.pack is None
    assert f"goes on alone: {reason}" in caplog.text
    with pytest.raises(EOFError):  # nobody waits for it
        here.recv()


def test_a_run_that_measures_holds_nobody_up(toy_survey, tmp_path):
    """The first run has one epoch and then measures: it leaves before."""
    order = []

    class Slow(L.Callback):
        def on_fit_end(self, trainer, pl_module):
            order.append(pl_module.pack is None or pl_module.pack._pipe is None)

    here, there = Pipe()
    data = survey_of(toy_survey, 0)
    model = build(data)
    model.pack = PackLine(there)
    model.pack._member = "it has joined"
    model.pack.train_epoch = lambda model: None
    trainer(epochs=1, callbacks=[Continuity(Run(tmp_path, must_exist=False), None), Slow()]).fit(model, datamodule=data)
    assert order == [True]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_run_that_is_resumed_to_measure_asks_for_the_gpu_of_its_pack(monkeypatch, device):
    """It has had its last epoch and never joined."""
    serving = Serving(1, monkeypatch)
    serving.server.device = torch.device(device)
    (line,) = serving.lines
    line.end_training()
    assert line.on_gpu == (device == "cuda") == (line._pipe is not None)
    line.close()
    serving.thread.join(20)
    assert not serving.thread.is_alive()


@pytest.mark.parametrize(
    ("pack", "accelerator", "environment", "expected"),
    [
        (8, "auto", {"CUDA_VISIBLE_DEVICES": "0"}, True),
        ("auto", "gpu", {"CUDA_VISIBLE_DEVICES": "1"}, True),
        (1, "auto", {"CUDA_VISIBLE_DEVICES": "0"}, False),
        (8, "cpu", {"CUDA_VISIBLE_DEVICES": "0"}, False),
        (8, "auto", {}, False),
    ],
)
def test_all_runs_of_a_sweep_are_measured_alike(monkeypatch, tmp_path, pack, accelerator, environment, expected):
    """Also one that is left alone: it knows that the others train in packs on a GPU."""
    started = []
    context = SimpleNamespace(Pipe=Pipe, Process=lambda target, args, daemon: started.append(args) or Started())
    monkeypatch.setattr("spectangle.sweeps.trial.get_context", lambda method: context)
    options = Options(pack=pack, preload=[])
    plan = SimpleNamespace(options=options, accelerator=accelerator, prunes=False)
    claim = SimpleNamespace(overrides=[], trial=SimpleNamespace(number=0))
    Attempt(SimpleNamespace(), claim, tmp_path, plan, environment)  # pyright: ignore
    assert started[0][-1] is expected


class Started:
    sentinel = None

    def start(self):
        pass


# ---------------------------------------------------------------------- networks of regressors and probes

fit_together = NetworkFit.together


def some_fit(seed, n=60, weighed=False):
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(2, n, 3)).astype(np.float32)
    labels = np.tanh(inputs[..., :2] + inputs[..., 1:])
    shares = random.uniform(0.5, 1.5, (2, n)).astype(np.float32) if weighed else None
    return NetworkFit(inputs, labels, shares, (8, 4), 2, 5, 16, 8e-3, 1e-2, "absolute_error", seed)


@pytest.mark.parametrize("weighed", [False, True])
def test_fits_in_one_bank_are_what_they_are_alone(weighed):
    fits = [some_fit(seed, weighed=weighed) for seed in range(3)]
    before = torch.get_rng_state()
    together = fit_together(fits, torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
    for fit, layers in zip(fits, together, strict=True):
        expected = fit_together([fit], torch.device("cpu"))[0]
        assert [weight.shape for weight, _ in layers] == [(4, 3, 8), (4, 8, 4), (4, 4, 2)]
        for one, other in zip(layers, expected, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(together[0][0][0] - together[1][0][0]).max() > 0.1


class OnGPU:
    """A pack in a thread that fits networks for its runs, as one with a GPU does; ``banks`` are the sizes of these."""

    def __init__(self, count, monkeypatch, patience=60.0):
        self.serving = Serving(count, monkeypatch)
        self.lines, self.banks = self.serving.lines, []
        for line in self.lines:
            line.on_gpu = True
        monkeypatch.setattr("spectangle.packs.pack_server.PATIENCE_S", patience)

        def watched(fits, device):
            self.banks.append(len(fits))
            return fit_together(fits, device)

        monkeypatch.setattr(NetworkFit, "together", staticmethod(watched))

    def fit(self, fits):
        with ThreadPoolExecutor(len(fits)) as pool:
            return list(pool.map(lambda line, fit: line.begin(fit)(), self.lines, fits))


def test_a_pack_fits_the_networks_of_its_runs_together(monkeypatch):
    """Of one kind as one bank; those of another apart; the ones that are left when one has gone."""
    pack = OnGPU(3, monkeypatch)
    fits = [some_fit(0), some_fit(1), some_fit(2, n=50)]
    for fit, layers in zip(fits, pack.fit(fits), strict=True):
        np.testing.assert_allclose(layers[0][0], fit_together([fit], torch.device("cpu"))[0][0][0], atol=1e-5)
    assert sorted(pack.banks) == [1, 2]
    pack.lines.pop().close()
    pack.fit(fits[:2])
    assert pack.banks[-1] == 2
    for line in pack.lines:
        line.close()
    pack.serving.thread.join(20)
    assert not pack.serving.thread.is_alive()


def test_a_run_goes_on_while_its_pack_fits(monkeypatch):
    """Two fits are begun before any is waited for; each answer is that of its own."""
    pack, go = OnGPU(1, monkeypatch), Event()

    def when_told(fits, device):
        assert go.wait(20)
        return fit_together(fits, device)

    monkeypatch.setattr(NetworkFit, "together", staticmethod(when_told))
    fits = [some_fit(0), some_fit(1, n=50)]
    expected = [fit_together([fit], torch.device("cpu"))[0] for fit in fits]
    begun = [pack.lines[0].begin(fit) for fit in fits]
    go.set()  # not before both were begun
    for layers, fitted in zip(expected, begun, strict=True):
        np.testing.assert_array_equal(fitted()[0][0], layers[0][0])
        assert fitted() is not None  # asked again, it does not wait for another


def test_a_pack_fits_each_kind_of_network(monkeypatch):
    """One run asks for networks of the default regressor, the other for the paper's."""
    pack, plain = OnGPU(2, monkeypatch), some_fit(0)
    stopping = StoppedFit(plain.inputs[0], plain.labels[0], np.ones(60), (8, 4), 1e-4, 5, 10, 16, seed=0)
    expected = StoppedFit.together([stopping], torch.device("cpu"))[0]
    layers, stopped = pack.fit([plain, stopping])
    assert len(layers) == 3 and stopped.epochs == expected.epochs == 5
    np.testing.assert_array_equal(stopped.layers[0][0], expected.layers[0][0])


def test_a_fit_waits_for_others_no_longer_than_some_time(monkeypatch):
    pack = OnGPU(2, monkeypatch, patience=0.2)
    assert pack.lines[0].begin(some_fit(0))() is not None and pack.banks == [1]


def test_fits_that_have_no_room_together_are_done_one_by_one(monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "spectangle.packs.pack_server")  # a record of pytest's would hold the error
    pack = OnGPU(2, monkeypatch)

    held = []

    def narrow(fits, device):
        pack.banks.append(len(fits))
        if len(fits) > 1:
            bank = torch.zeros(3)
            held.append(weakref.ref(bank))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert held[0]() is None  # what had no room has gone
        return fit_together(fits, device)

    monkeypatch.setattr(NetworkFit, "together", staticmethod(narrow))
    assert None not in pack.fit([some_fit(0), some_fit(1)]) and pack.banks == [2, 1, 1]


def test_a_run_on_a_gpu_whose_pack_is_lost_in_a_fit_does_not_train_on_alone(monkeypatch):
    pack = OnGPU(1, monkeypatch)
    pack.lines[0].close()  # the process has ended
    assert pack.lines[0].begin(some_fit(0))() is None
    with pytest.raises(SpectangleError, match="on a GPU is lost: the process of the pack has ended"):
        pack.lines[0].train_epoch(None)


def test_a_fit_that_the_pack_cannot_do_is_done_here(monkeypatch, caplog):
    pack = OnGPU(1, monkeypatch)
    monkeypatch.setattr("spectangle.packs.line._line", pack.lines[0])

    def full(fits, device):
        monkeypatch.undo()  # this process can
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(NetworkFit, "together", staticmethod(full))
    layers = begin_fit(some_fit(0))()
    np.testing.assert_array_equal(layers[0][0], fit_together([some_fit(0)], torch.device("cpu"))[0][0][0])
    assert "on the CPU: the pack cannot fit (OutOfMemoryError: CUDA out of memory)" in caplog.text
    assert pack.lines[0]._pipe is not None  # it has its place still


def test_a_run_that_measures_with_the_pack_lets_the_others_train(data, monkeypatch):
    """The first trains one epoch and has networks fitted, the second trains on meanwhile."""
    pack = OnGPU(2, monkeypatch, patience=0.1)
    (first, second), models = pack.lines, [build(data, seed, **NOISY) for seed in range(2)]
    for seed, (line, model) in enumerate(zip(pack.lines, models, strict=True)):
        member = Member.of(model, model.configure_optimizers(), seed, EPOCHS)
        line._member = member
        send(line._pipe, {"member": member, "stars": "toy", "batches": 2, "precision": "32-true"})
        if receive(line._pipe)["send_stars"]:
            send(line._pipe, [tensor.numpy() for tensor in data.training_tensors])
    with ThreadPoolExecutor(2) as pool:
        assert all("state" in one for one in pool.map(ask, (first._pipe, second._pipe), (0, 0)))
    first.end_training()
    assert first.begin(some_fit(0))() is not None
    assert all("state" in ask(second._pipe, epoch) for epoch in range(1, EPOCHS))
    assert first.begin(some_fit(1))() is not None and pack.banks == [1, 1]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ({"seed": 0}, {"seed": 1}, True),
        ({"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-2}, True),
        ({"lambdas.m_h": 0.1}, {"lambdas.m_h": 3}, True),
        ({"lambdas.m_h": 0.1}, {"lambdas.m_h": -3}, False),
        ({"lambdas.m_h": 0.0}, {"lambdas.m_h": 3}, False),
        ({"lambdas": "first_pair"}, {"lambdas": "second_pair"}, False),
        ({"model.input_noise": 0.5}, {"model.input_noise": 1}, True),
        ({"model.input_noise": 0}, {"model.input_noise": 1}, False),
        ({"model.latent": 5}, {"model.latent": 10}, False),
        ({"bins.count": 5}, {"bins.count": 10}, False),
        ({"model.hidden": "[16]"}, {"model.hidden": "[16]"}, True),
        ({"anything.else": 1}, {"anything.else": 2}, False),
        ({"data.fold": 0}, {"data.fold": 1}, False),
        ({"data.batch_size": 64}, {"data.batch_size": 256}, False),
        ({"adversary.objective": "neg_ce"}, {"adversary.objective": "uniform"}, False),
        ({"adversary.discriminator_steps": 1}, {"adversary.discriminator_steps": 5}, False),
        ({"optimizer.new": 1}, {"optimizer.new": 2}, False),
        ({"seed_of": 1}, {"seed_of": -1}, False),
        ({"+lambdas.m_h": 0.1}, {"lambdas.m_h": 3}, True),
        ({"model.latent": 5, "bins.count": 3}, {"bins.count": 3, "model.latent": 5}, True),
        ({"strength": 0.1}, {"strength": 10}, True),
        ({"strength": 0.1, "model": "small"}, {"strength": 10, "model": "paper"}, False),
    ],
)
def test_who_may_share_a_pack(first, second, together):
    assert (pack_key(first) == pack_key(second)) == together


@pytest.mark.parametrize(("peak", "workers", "size"), [(None, 1, 1), (2.0, 1, 8), (2.0, 2, 4), (50.0, 1, 1)])
def test_auto_takes_as_many_as_there_is_memory_for(monkeypatch, tmp_path, peak, workers, size):
    monkeypatch.setattr("spectangle.sweeps.pack.free_memory_gb", lambda: 20.0)
    if peak is not None:
        (tmp_path / "c1" / ".hydra").mkdir(parents=True)
        (tmp_path / "c1" / ".hydra" / "config.yaml").write_text("{}")
        (tmp_path / "c1" / "metrics.json").write_text(f'{{"memory/peak_gb": {peak}}}')
    plan = SimpleNamespace(options=Options(pack="auto"), folder=tmp_path)
    assert pack_size(plan, workers) == size
    assert pack_size(SimpleNamespace(options=Options(pack=3), folder=tmp_path), workers) == 3


def test_the_free_memory_is_what_the_job_has(monkeypatch):
    assert 0.1 < free_memory_gb() < 10000
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert free_memory_gb() == pytest.approx(0.1048576)


@pytest.mark.parametrize("pack", [0, "many", True, 1.5])
def test_a_pack_is_a_number_or_auto(pack):
    with pytest.raises(SpectangleError, match="sweep.pack is"):
        Options(pack=pack)


def attempt_of(monkeypatch, tmp_path, finished, packed=True):
    """Seeds and reporting of the processes that an attempt at three seeds would start."""
    begun = []

    class Fake:
        def __init__(self, app, claim, log_folder, folder, plan, environment, seeds, reports, place):
            begun.append((list(seeds), reports))

    monkeypatch.setattr("spectangle.sweeps.trial.RunProcess", Fake)
    for seed in finished:
        (tmp_path / f"seed={seed}").mkdir()
        (tmp_path / f"seed={seed}" / "metrics.json").write_text("{}")
    plan = SimpleNamespace(options=Options(trial_seeds=[0, 1, 2]), prunes=True)
    Attempt(None, None, tmp_path, plan, {}, (lambda: None) if packed else None)
    return begun


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ([], [([0], True), ([1], False), ([2], False)]),
        ([0], [([1], False), ([2], False)]),  # the first seed speaks for all, no other one
        ([0, 1, 2], [([0, 1, 2], True)]),  # which lack an objective: one process looks at them
    ],
)
def test_seeds_of_a_pack_have_processes_of_their_own(monkeypatch, tmp_path, finished, expected):
    assert attempt_of(monkeypatch, tmp_path, finished) == expected
    assert attempt_of(monkeypatch, tmp_path / "other", [], packed=False) == [([0, 1, 2], True)]
