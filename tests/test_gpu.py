"""On a GPU: training, packs and regressors use it, and what is told to leave it alone does."""

import copy
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from commands import run_train
from sweep_tools import records
from test_packed_sweeps import FAST, finish, packed_sweep
from test_packs import INCOMPLETE, NOISY, VARIANTS, assert_same, build, data, some_fit  # noqa: F401
from test_regression import stopped_fit

from spectangle.packs.captured import Replay
from spectangle.packs.member import Member
from spectangle.packs.network_fits import NetworkFit
from spectangle.packs.own_stack import OwnStack
from spectangle.packs.stack import Stack
from spectangle.packs.stopped_fits import StoppedFit
from spectangle.runs.folder import Run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_trains_on_it(toy_survey, tmp_path, precision):
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    run_train(*FAST[:-1], f"data.path={toy_survey}", f"hydra.run.dir={tmp_path}", f"trainer.precision={precision}")
    assert Run(tmp_path).finished and torch.cuda.max_memory_allocated() > before


def test_a_run_on_the_cpu_leaves_it_alone(toy_survey, tmp_path):
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    options = ["model=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu", "callbacks.figures=null"]
    run_train("data=survey", f"data.path={toy_survey}", f"hydra.run.dir={tmp_path}", *options)
    assert Run(tmp_path).finished and torch.cuda.max_memory_allocated() == before


def test_a_run_of_its_own_is_captured_and_what_it_is_without(data):  # noqa: F811
    model = build(data, **NOISY)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    found = []
    for captured in (True, False):
        one = copy.deepcopy(model)
        one.pack = OwnStack() if captured else None
        trainer = L.Trainer(max_epochs=3, accelerator="gpu", precision="64-true", **quiet)
        trainer.fit(one, datamodule=data)
        found.append(one)
    assert found[0].pack._stack.replay.graphs
    assert_same(found[1], found[0], 1e-6)


def test_a_stack_trains_on_it(data):  # noqa: F811
    models = [build(data, seed, **NOISY) for seed in range(3)]
    place = torch.device("cuda")
    members = [
        Member.of(m, m.configure_optimizers(), seed, 3).to(place) for seed, m in enumerate(copy.deepcopy(models))
    ]
    stack = Stack(members)
    stars = [tensor.to(place) for tensor in data.training_tensors]
    for epoch in range(3):
        answers = stack.train_epoch(stars, [epoch] * 3, len(data.train_dataloader()))
    assert all(torch.isfinite(torch.as_tensor(answer["sums"]["loss"])) for answer in answers)


@pytest.mark.parametrize("variant", [*VARIANTS.values(), INCOMPLETE], ids=[*VARIANTS.keys(), "missing labels"])
def test_a_captured_step_is_what_it_is_without(data, variant):  # noqa: F811
    """In double precision: the training multiplies a difference in the order of sums with every batch."""
    found = []
    for captured in (True, False):
        models = [build(data, seed, **variant).double().to("cuda") for seed in range(2)]
        stack = Stack([Member.of(m, m.configure_optimizers(), seed, 3) for seed, m in enumerate(models)], "64-true")
        if not captured:
            stack.replay.captures = False
        stars = [tensor.to("cuda") for tensor in data.training_tensors]
        for epoch in range(3):
            stack.train_epoch(stars, [epoch] * 2, len(data.train_dataloader()))
        assert captured == bool(stack.replay.graphs)
        found.append(stack.groups)
    for group, other in zip(*found, strict=True):
        for name, value in group.parameters.items():
            torch.testing.assert_close(value, other.parameters[name], rtol=1e-6, atol=1e-8)


def test_a_rate_that_falls_falls_in_a_captured_step_too(data):  # noqa: F811
    """Models of one rate take torch's fused step, in single precision only."""
    found = []
    for captured in (True, False):
        models = [build(data, seed, **NOISY).to("cuda") for seed in range(2)]
        stack = Stack([Member.of(m, m.configure_optimizers(), seed, 4) for seed, m in enumerate(models)])
        assert all(group.alike for group in stack.groups)
        if not captured:
            stack.replay.captures = False
        stars = [tensor.to("cuda") for tensor in data.training_tensors]
        for epoch in range(4):
            stack.train_epoch(stars, [epoch] * 2, 4)
        assert captured == bool(stack.replay.graphs)
        found.append(stack.groups)
    for group, other in zip(*found, strict=True):
        for name, value in group.parameters.items():
            torch.testing.assert_close(value, other.parameters[name], rtol=1e-3, atol=1e-4)


WAITS = """
import torch
from spectangle.packs.captured import Replay as Captured

def waits(value):
    return {"twice": 2 * value if value.sum().item() else value}

replay, stream = Captured(torch.device("cuda")), torch.cuda.current_stream()
ones = torch.ones(1000, 1000, device="cuda")
found = [float(replay(waits, torch.full((3,), float(i), device="cuda"))["twice"].sum()) for i in range(5)]
assert found == [0.0, 6.0, 12.0, 18.0, 24.0] and not Captured.captures, found
assert torch.cuda.current_stream() == stream and float((ones @ ones).mean()) == 1000.0
"""


def test_what_cannot_be_captured_leaves_the_gpu_as_it_was():
    """In a process of its own, in which nothing is captured any more."""
    subprocess.run([sys.executable, "-c", WAITS], check=True, timeout=120)


def test_the_networks_of_a_pack_are_fitted_on_it():
    fits = [some_fit(seed) for seed in range(3)]
    found, expected = (NetworkFit.together(fits, torch.device(place)) for place in ("cuda", "cpu"))
    for layers, others in zip(found, expected, strict=True):
        for (weight, _), (other, _) in zip(layers, others, strict=True):
            np.testing.assert_allclose(weight, other, atol=0.05)


def test_networks_that_stop_are_fitted_on_it(monkeypatch):
    """In single precision one may stop an epoch earlier; what it reads is as good."""
    captured, capture = [], Replay._capture
    monkeypatch.setattr(Replay, "_capture", lambda *given: captured.append(1) or capture(*given))
    fits = [stopped_fit(seed) for seed in range(3)]
    found, expected = (StoppedFit.together(fits, torch.device(place)) for place in ("cuda", "cpu"))
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=0.05)
    assert captured and Replay.captures


def test_a_sweep_in_a_pack_uses_it(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1", "trainer.max_epochs=3", "trainer.accelerator=gpu"]
    finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid, "sweep.pack=2"))
    assert {record["state"] for record in records(tmp_path / "sweep").values()} == {"complete"}
