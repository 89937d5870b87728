"""On a GPU: training, packs and regressors use it, and what is told to leave it alone does."""

import copy

import numpy as np
import pytest
import torch
from commands import run_train
from sweep_tools import records
from test_packed_sweeps import FAST, finish, packed_sweep
from test_packs import NOISY, build, data, some_fit  # noqa: F401

from spectangle.packs.member import Member
from spectangle.packs.network_fits import fit_together
from spectangle.packs.stack import Stack
from spectangle.runs.folder import Run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_trains_on_it(toy_survey, tmp_path, precision):
    before = torch.cuda.max_memory_allocated()
    run_train(*FAST[:-1], f"data.path={toy_survey}", f"hydra.run.dir={tmp_path}", f"trainer.precision={precision}")
    assert Run(tmp_path).finished and torch.cuda.max_memory_allocated() > before


def test_a_run_on_the_cpu_leaves_it_alone(toy_survey, tmp_path):
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    options = ["model=tiny", "trainer.max_epochs=2", "trainer.accelerator=cpu", "callbacks.figures=null"]
    run_train("data=survey", f"data.path={toy_survey}", f"hydra.run.dir={tmp_path}", *options)
    assert Run(tmp_path).finished and torch.cuda.max_memory_allocated() == before


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


def test_the_networks_of_a_pack_are_fitted_on_it():
    fits = [some_fit(seed) for seed in range(3)]
    found, expected = (fit_together(fits, torch.device(place)) for place in ("cuda", "cpu"))
    for layers, others in zip(found, expected, strict=True):
        for (weight, _), (other, _) in zip(layers, others, strict=True):
            np.testing.assert_allclose(weight, other, atol=0.05)


def test_a_sweep_in_a_pack_uses_it(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1", "trainer.max_epochs=3", "trainer.accelerator=gpu"]
    finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid, "sweep.pack=2"))
    assert {record["state"] for record in records(tmp_path / "sweep").values()} == {"complete"}
