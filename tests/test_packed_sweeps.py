"""Sweeps in packs, with real processes: what they leave is what sweeps without packs leave, whoever is killed."""

import os
import signal
import statistics
import subprocess
import sys
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY
from sweep_tools import TRAIN, environment, records, trials, wait_for

from spectangle.runs.folder import Run
from spectangle.sweeps.pack import Pack, stacks

FAST = [*TINY, "callbacks.regressor=null", "callbacks.probes=null", "hydra/sweeper=spectangle"]


def packed_sweep(folder, survey, *arguments):
    line = [sys.executable, str(TRAIN), "-m", *FAST, f"data.path={survey}", f"sweep.dir={folder}", *arguments]
    return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, code=0):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def test_a_sweep_in_a_pack_has_the_runs_of_one_without(toy_survey, tmp_path):
    """Seeds and rates in one pack; a run that diverges fails alone; whoever runs one again alone, goes on from it."""
    grid = ["hydra/sweeper/sampler=grid", "optimizer.lr=1e-3,2e-3", "trial_seeds=[0,1]", "trainer.max_epochs=2"]
    finish(packed_sweep(tmp_path / "pack", toy_survey, *grid, "sweep.pack=4"))
    finish(packed_sweep(tmp_path / "alone", toy_survey, *grid))
    names = sorted(record["name"] for record in records(tmp_path / "pack").values())
    assert names == sorted(record["name"] for record in records(tmp_path / "alone").values()) and len(names) == 2
    packs = set()
    for name in names:
        for seed in ("seed=0", "seed=1"):
            run, there = Run(tmp_path / "pack" / name / seed), Run(tmp_path / "alone" / name / seed)
            packs.add(run.manifest["pack"])
            assert "pack" not in there.manifest and run.finished
            assert "read once for the runs of the pack" in (run.path / "output.log").read_text()
            assert run.history[0].keys() == there.history[0].keys()
            for key, value in there.history[0].items():
                assert run.history[0][key] == pytest.approx(value, rel=0.05, abs=0.02), key
            state, other = (torch.load(one.last_checkpoint, weights_only=True) for one in (run, there))
            assert state.keys() == other.keys() and state["global_step"] == other["global_step"]
    assert len(packs) == 1
    assert not list((tmp_path / "pack" / "workers").iterdir())


def test_a_pack_hides_no_mistake_of_the_trainer(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1", "sweep.pack=2", "trainer.devices=4"]
    assert "trainer.devices is 4" in finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid), code=1)


def test_final_metrics_agree_within_the_spread_of_seeds(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "optimizer.lr=1e-3,3e-3", "trial_seeds=[0,1,2]", "regressor=ridge"]
    grid = [f"data.path={toy_survey}", *grid, "callbacks.regressor.paper=null", "callbacks.probes=null"]
    line = [sys.executable, str(TRAIN), "-m", *TINY, "hydra/sweeper=spectangle", *grid]
    for name, pack in (("pack", 6), ("alone", 1)):
        arguments = [f"sweep.dir={tmp_path / name}", f"sweep.pack={pack}"]
        subprocess.run([*line, *arguments], env=environment(), check=True, capture_output=True, timeout=240)
    for record in records(tmp_path / "alone").values():
        found = {
            where: [Run(tmp_path / where / record["name"] / f"seed={seed}").metrics for seed in range(3)]
            for where in ("pack", "alone")
        }
        for key in ("val/reconstruction", "test/latent/teff/mae", "test/latent/logg/mae", "test/latent/m_h/mae"):
            there = [metrics[key] for metrics in found["alone"]]
            difference = statistics.mean(metrics[key] for metrics in found["pack"]) - statistics.mean(there)
            assert abs(difference) <= statistics.stdev(there), (key, difference, there)


def test_one_that_diverges_fails_alone(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "optimizer.lr=1e-3,1e30,2e-3", "trainer.max_epochs=3", "sweep.retries=0"]
    finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid, "sweep.pack=3"), code=1)
    found = {name: record["state"] for name, record in records(tmp_path / "sweep").items()}
    assert sorted(found.values()) == ["complete", "complete", "failed"]
    assert "not a number" in records(tmp_path / "sweep")["optimizer.lr=1e+30"]["reason"]


def processes(folder):
    """Processes of a sweep's pack and of its runs, by what they hold."""
    line = subprocess.run(["pgrep", "-f", f"sweep.dir={folder}"], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in line]


def test_a_pack_that_is_killed_is_resumed_run_by_run(toy_survey, tmp_path):
    """The whole sweep gets SIGKILL; without packs the same command goes on from the last checkpoints."""
    folder = tmp_path / "sweep"
    arguments = ["hydra/sweeper/sampler=grid", "seed=0,1", "trainer.max_epochs=60", "sweep.heartbeat_s=0.5"]
    process = packed_sweep(folder, toy_survey, *arguments, "sweep.pack=2")
    wait_for(lambda: len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, 120)
    for pid in processes(folder):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    begun = {path: len(Run(path).history) for path in folder.glob("c*") if (path / "metrics.csv").is_file()}
    assert len(begun) == 2 and max(begun.values()) < 60
    finish(packed_sweep(folder, toy_survey, *arguments))
    for path in begun:
        starts = Run(path).manifest["starts"]
        assert len(starts) == 2 and [row["epoch"] for row in Run(path).history] == list(range(60))
        assert "resumed from" in (path / "output.log").read_text()


@pytest.mark.parametrize(("runs", "threads", "count", "left"), [(3, 1, 1, 3), (5, 2, 2, 3)])
def test_the_sweep_outlives_a_process_of_its_pack(toy_survey, tmp_path, runs, threads, count, left):
    """With two threads there are two: the runs of the other are still trained by it."""
    folder = tmp_path / "sweep"
    seeds = ",".join(map(str, range(runs)))
    arguments = ["hydra/sweeper/sampler=grid", f"seed={seeds}", "trainer.max_epochs=40", "sweep.heartbeat_s=0.5"]
    process = packed_sweep(folder, toy_survey, *arguments, f"sweep.pack={runs}", f"sweep.threads={threads}")
    wait_for(lambda: len(list(folder.glob("*/checkpoints/last.ckpt"))) == runs, 120)
    log = next((folder / "workers").glob("pack-*.log"))
    victims = sorted(pid for pid in processes(folder) if os.readlink(f"/proc/{pid}/fd/1") == str(log))
    assert len(victims) == count
    os.kill(victims[0], signal.SIGKILL)  # the first has the first run, the third, ...
    finish(process)
    logs = [path.read_text() for path in folder.glob("*/output.log")]
    assert len(logs) == runs and sum("goes on alone" in text for text in logs) == left
    assert len(trials(folder)) == runs


def test_a_pack_on_a_cpu_has_a_process_for_each_thread_but_no_run_to_itself():
    assert [stacks(runs, 2) for runs in (2, 3, 4, 8)] == [1, 1, 2, 2]
    assert [stacks(8, threads) for threads in (1, 2, 4, 16)] == [1, 2, 4, 4]


@pytest.mark.parametrize(
    ("accelerator", "gpu", "expected"),
    [
        ("auto", {}, [([0, 2, 4], 2), ([1, 3], 1)]),
        ("auto", {"CUDA_VISIBLE_DEVICES": "0"}, [([0, 1, 2, 3, 4], 3)]),
        ("cpu", {"CUDA_VISIBLE_DEVICES": "0"}, [([0, 2, 4], 2), ([1, 3], 1)]),
    ],
)
def test_a_gpu_has_one_process_with_all_runs_and_threads(tmp_path, accelerator, gpu, expected):
    options = SimpleNamespace(pack=5, start_method=None)
    plan: Any = SimpleNamespace(options=options, accelerator=accelerator, folder=tmp_path)
    pack = Pack(plan, {"OMP_NUM_THREADS": "3"} | gpu)
    started: list = []
    process = lambda **given: SimpleNamespace(start=lambda: started.append(given["args"]))  # noqa: E731
    pack.context = SimpleNamespace(Pipe=Pipe, Process=process)
    places = [pack.place() for _ in range(5)]
    pipes = list(pack.pipes)
    pack.start()
    found = [([pipes.index(pipe) for pipe in own], threads) for own, _, _, _, _, threads, _ in started]
    assert found == expected and len(places) == 5
    for own, others, *_ in started:
        assert sorted(pipes.index(pipe) for pipe in (*own, *others)) == [0, 1, 2, 3, 4]


def test_a_pruned_run_leaves_its_pack(toy_survey, tmp_path):
    """A run is held against the median of those that have ended: none of the first pack is pruned."""
    grid = ["hydra/sweeper/sampler=grid", "optimizer.lr=1e-3,5e-3,1e-8,1e-2", "trainer.max_epochs=12"]
    pruner = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=0"]
    finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid, *pruner, "sweep.pack=2"))
    found = records(tmp_path / "sweep")
    pruned = found["optimizer.lr=1e-08"]
    assert pruned["state"] == "pruned" and len(Run(tmp_path / "sweep" / pruned["name"]).history) < 12
    other = found["optimizer.lr=0.01"]
    packs = {Run(tmp_path / "sweep" / record["name"]).manifest["pack"] for record in (pruned, other)}
    assert len(packs) == 1 and other["state"] == "complete", found
    assert len(Run(tmp_path / "sweep" / other["name"]).history) == 12


def test_a_pack_that_cannot_start_leaves_no_process(toy_survey, tmp_path):
    """The disk is full when the worker notes its runs: it ends with them, and the next worker starts anew."""
    code = (
        "import sys; from spectangle.sweeps import controller, pack; from spectangle.commands.main import main\n"
        "controller.YOUNG_S = 0\n"  # no worker is too young: only why it ended counts
        "def fails(self): raise OSError('No space left on device')\n"
        f"pack.Pack.start = fails; sys.argv = ['spectangle', 'train', *{[*FAST, f'data.path={toy_survey}']!r}, '-m', "
        f"'sweep.dir={tmp_path}/sweep', 'seed=0,1', 'hydra/sweeper/sampler=grid', 'sweep.pack=2', 'sweep.retries=0']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "No space left" in done.stdout + done.stderr
    assert not processes(tmp_path / "sweep")


def test_a_launcher_that_starts_each_run_has_no_packs(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1", "hydra/launcher=slurm", "sweep.pack=2"]
    assert "sweep.pack=2 needs workers" in finish(packed_sweep(tmp_path, toy_survey, *grid), code=1)


def test_auto_tries_one_run_and_then_packs_the_rest(toy_survey, tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "seed=0,1,2", "trainer.max_epochs=2", "sweep.pack=auto"]
    finish(packed_sweep(tmp_path / "sweep", toy_survey, *grid))
    packs = [Run(path).manifest.get("pack") for path in (tmp_path / "sweep").glob("c*")]
    assert len(packs) == 3 and packs.count(None) == 1 and len(set(packs) - {None}) == 1
