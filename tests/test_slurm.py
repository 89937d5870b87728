"""Sweeps on a real SLURM on this machine: arrays, dying jobs and workers, time limits, pre-emption, a killed
controller.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import write_toy_survey
from sweep_tools import TRAIN, command, records, starts, trials, wait_for, write_plain, write_sweep

sys.path.insert(0, str(Path(__file__).parent / "slurm"))
from cluster import Cluster, why_not
from wandb_server import Server

from spectangle.runs.folder import Run
from spectangle.tracking.offline_runs import sync as send
from spectangle.tracking.wandb_files import read, segments

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]
QUICK = ["hydra.launcher.cpus=1", "hydra.launcher.memory_gb=0", "hydra.launcher.setup=['export OMP_NUM_THREADS=1']"]
WORKERS = ["hydra/launcher=slurm_workers", *QUICK]
BATCHES = ["hydra/launcher=slurm", *QUICK]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm")).start()
    yield cluster
    cluster.stop()


def sweep(cluster: Cluster, folder: Path, *arguments: str, code: int = 0, name: str = "toy") -> str:
    answer = subprocess.run(
        command(folder, *arguments, name=name),
        capture_output=True,
        text=True,
        env=cluster.environment,
        cwd=folder,
        timeout=240,
    )
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def submit(cluster: Cluster, folder: Path, *arguments: str) -> str:
    found = re.search(r"job (\d+):", sweep(cluster, folder, *WORKERS, *arguments))
    assert found
    return found[1]


def epochs(folder: Path) -> list[list[str]]:
    """The epochs of each run, without those that were repeated because their checkpoint was not written."""
    return [[*dict.fromkeys(path.read_text().split())] for path in sorted(folder.glob("*/epochs.log"))]


def test_workers_finish_although_one_is_cancelled_and_a_run_exits(cluster: Cluster, tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "range(0, 0.8, 0.1)", "fail": "choice(none, exit)"}, retries=2)
    job = submit(cluster, tmp_path, "hydra.launcher.workers=4", "epochs=6", "epoch_s=0.2", "fail_tries=1")
    wait_for(lambda: len(list(folder.glob("*/epochs.log"))) >= 4)
    cluster.run("scancel", f"{job}_2")
    wait_for(lambda: not cluster.jobs(), 150)
    found = records(folder)
    assert len(found) == 16 and Counter(record["state"] for record in found.values()) == {"complete": 16}
    assert all(run == list("123456") for run in epochs(folder))
    assert (
        max(
            Counter(
                trial.user_attrs["configuration"] for trial in trials(folder) if trial.state.name == "COMPLETE"
            ).values()
        )
        == 1
    )
    assert all(
        starts(folder)[record["name"]] >= (2 if record["params"]["fail"] == "exit" else 1) for record in found.values()
    )


def test_time_limits_and_pre_emption_requeue_and_resume(cluster: Cluster, tmp_path: Path):
    """Three runs at once: two meet their time limit (SLURM counts minutes), one is pre-empted; all go on where they
    were.
    """
    limited, preempted, batch = (tmp_path / name for name in ("limited", "preempted", "batch"))
    for folder in (limited, preempted, batch):
        folder.mkdir()
        write_sweep(folder, params={"x": "choice(0.1)"}, retries=0)
    # SLURM looks every 30 s and signals up to 30 s early: 10 to 40 s after the start
    long = ["hydra.launcher.time_min=1", "hydra.launcher.signal_s=20", "epochs=100", "epoch_s=0.5"]
    first = submit(cluster, limited, "hydra.launcher.workers=1", *long) + "_1"
    second = (
        submit(
            cluster, preempted, "hydra.launcher.workers=1", "hydra.launcher.partition=low", "epochs=80", "epoch_s=0.5"
        )
        + "_1"
    )
    controller = subprocess.Popen(
        command(batch, *BATCHES, *long),
        env=cluster.environment,
        cwd=batch,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: len(list(tmp_path.glob("*/sweep/*/epochs.log"))) == 3)
    (third,) = set(cluster.jobs()) - {first, second}
    cluster.run("sbatch", "--parsable", "-p", "high", "-n", "2", "--output=/dev/null", "--wrap=sleep 2")
    # SLURM holds a requeued job back for two minutes; within a second of the requeue the node still refuses it
    for job in (second, first, third):
        wait_for(lambda job=job: cluster.fact(job, "Restarts") == "1", 150)
        cluster.run("scontrol", "update", f"job={job}", "TimeLimit=10", check=False)
        cluster.run("scontrol", "update", f"job={job}", "StartTime=now+3", check=False)
    output, _ = controller.communicate(timeout=240)
    assert controller.returncode == 0, output
    wait_for(lambda: not cluster.jobs(), 150)
    for folder, count in ((limited, 100), (preempted, 80), (batch, 100)):
        uninterrupted(cluster, folder, folder / "sweep", count)


def uninterrupted(cluster: Cluster, tmp_path: Path, folder: Path, count: int) -> None:
    """A run that was interrupted has the epochs and the numbers of one that was not."""
    (record,) = records(folder).values()
    assert record["state"] == "complete" and starts(folder)[record["name"]] == 2
    lines = (folder / record["name"] / "epochs.log").read_text().split()
    assert [*dict.fromkeys(lines)] == [str(number + 1) for number in range(count)] and len(lines) <= count + 1
    sweep(cluster, tmp_path, f"epochs={count}", "epoch_s=0", f"sweep.dir={tmp_path}/calm")
    (calm,) = records(tmp_path / "calm").values()
    assert record["values"] == calm["values"]


def test_batches_through_submitit_survive_a_job_that_dies_hard(cluster: Cluster, tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)", "fail": "choice(none, exit)"}, retries=0, batch=4)
    output = sweep(cluster, tmp_path, *BATCHES, code=1)
    assert Counter(record["state"] for record in records(folder).values()) == {"complete": 2, "failed": 2}, output
    assert "without a result" in records(folder)["x=0.1 fail=exit"]["reason"]


def test_tpe_in_two_waves(cluster: Cluster, tmp_path: Path):
    folder = write_sweep(tmp_path, sampler="tpe", params={"x": "interval(0, 1)"}, n_trials=6, batch=3)
    sweep(cluster, tmp_path, *BATCHES, "hydra.sweeper.sampler.seed=0")
    assert len(records(folder)) == 6 and set(starts(folder).values()) == {1}
    assert len(list((folder / ".submitit").glob("*_0"))) == 2


def test_a_killed_controller_finds_its_jobs_again(cluster: Cluster, tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2, 0.3, 0.4)"}, retries=0, batch=2)
    arguments = [*BATCHES, "epochs=10", "epoch_s=0.3"]
    process = subprocess.Popen(
        command(tmp_path, *arguments),
        env=cluster.environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(list(folder.glob("*/epochs.log"))) == 2)
    process.kill()
    process.wait()
    sweep(cluster, tmp_path, *arguments)
    assert Counter(record["state"] for record in records(folder).values()) == {"complete": 4}
    assert set(starts(folder).values()) == {1}


def test_a_folder_of_any_name_is_submitted_and_swept(cluster: Cluster, tmp_path: Path):
    """Through the script that SLURM reads: its options, its line, and the values in it."""
    place = tmp_path / "it's a (b), [v2] {c} $HOME & d"
    place.mkdir()
    folder = write_sweep(place, params={"x": "choice(0.1, 0.2)"}, retries=0)
    quoted = str(place).replace("'", "\\'")
    submit(cluster, place, "hydra.launcher.workers=1", "objective=score", f"+hydra.job.env_set.PLACE='{quoted}'")
    wait_for(lambda: not cluster.jobs(), 150)
    assert Counter(record["state"] for record in records(folder).values()) == {"complete": 2}, log_of(folder)
    assert list((folder / "slurm").glob("*_1.log"))


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / "slurm").iterdir())


def test_what_slurm_refuses_fixes_nothing(cluster: Cluster, tmp_path: Path):
    """A partition and a node that are not there; then another space, as it should have been."""
    folder = write_sweep(tmp_path, params={"x": "choice(0.1)"})
    refused = sweep(cluster, tmp_path, *WORKERS, "hydra.launcher.partition=mian", "hydra.launcher.workers=1", code=1)
    assert (
        "SLURM has no partition 'mian'" in refused
        and "Did you mean 'main'? There are: main, low, high" in refused
        and not folder.exists()
    )
    refused = sweep(
        cluster, tmp_path, *WORKERS, "hydra.launcher.extra={nodelist: nowhere}", "hydra.launcher.workers=1", code=1
    )
    assert "sbatch refused" in refused and "Traceback" not in refused and not (folder / "sweep.json").exists()
    write_sweep(tmp_path, params={"x": "choice(0.2, 0.3)"})
    assert "lies in /tmp" in sweep(
        cluster, tmp_path, *WORKERS, "hydra.launcher.workers=1"
    ) or not tmp_path.is_relative_to("/tmp")
    wait_for(lambda: not cluster.jobs(), 150)
    assert set(records(folder)) == {"x=0.2", "x=0.3"} and {record["state"] for record in records(folder).values()} == {
        "complete"
    }


def test_submit_sh_needs_three_words(cluster: Cluster, tmp_path: Path):
    script = Path(__file__).parents[1] / "sweeps" / "slurm" / "submit.sh"
    write_sweep(tmp_path, params={"x": "choice(0.1)"})
    answer = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=cluster.environment)
    assert answer.returncode != 0 and "usage" in answer.stderr


def test_hydras_own_sweeper_runs_on_slurm(cluster: Cluster, tmp_path: Path):
    write_plain(tmp_path)
    sweep(cluster, tmp_path, "-m", "x=0.1,0.2,0.3,0.4", *BATCHES, f"hydra.sweep.dir={tmp_path}/multirun", name="plain")
    assert len(list(tmp_path.glob("multirun/*/metrics.json"))) == 4


TRAINING = """
defaults: [config, {{override data: survey}}, {{override model: tiny}}, {{override logger: wandb}},
  {{override hydra/sweeper: spectangle}}, {{override hydra/sweeper/sampler: grid}}, _self_]
data: {{path: {folder}/toy.h5}}
trainer: {{max_epochs: 60}}
logger: {{mode: offline, model: false}}
callbacks: {{regressor: null, probes: null, figures: null}}
hydra: {{mode: MULTIRUN, sweep: {{dir: {folder}/sweep}}, sweeper: {{params: {{model.latent: choice(2)}}}}}}
"""


def test_a_requeued_run_is_one_run_in_wandb(cluster: Cluster, tmp_path: Path, monkeypatch):
    write_toy_survey(tmp_path / "toy.h5", n=160, n_pixels=20)
    (tmp_path / "training.yaml").write_text(TRAINING.format(folder=tmp_path))
    line = [sys.executable, str(TRAIN), "-cd", str(tmp_path), "-cn", "training", *WORKERS, "hydra.launcher.workers=1"]
    answer = subprocess.run(line, capture_output=True, text=True, env=cluster.environment, cwd=tmp_path, timeout=60)
    found = re.search(r"job (\d+):", answer.stdout)
    assert found, answer.stdout + answer.stderr
    job = f"{found[1]}_1"
    wait_for(
        lambda: any(len(Run(path.parents[1]).history) > 10 for path in tmp_path.glob("sweep/*/.hydra/config.yaml")), 150
    )
    cluster.run("scontrol", "requeue", job)
    wait_for(lambda: cluster.jobs().get(job) == "PENDING")
    cluster.run("scontrol", "update", f"job={job}", "StartTime=now+3", check=False)
    wait_for(lambda: not cluster.jobs(), 150)
    (run,) = (path.parents[1] for path in tmp_path.glob("sweep/*/wandb/identity.json"))
    pieces = [read(path) for path in segments(run)]
    first, last = pieces
    assert last["exit"] == 0  # the first was killed, unless SLURM gave it the time to say that it was interrupted
    assert first["exit"] is None or (first["exit"], first["summary"]["state"]) == (255, "interrupted")
    (name,) = {piece["run"]["id"] for piece in pieces}
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    try:
        assert send(run) == 1 and list(server.runs) == [name] and server.ends[name] == [0]
        assert [row["epoch"] for row in server.lines(name) if "train/loss" in row] == list(range(60))
    finally:
        server.close()
