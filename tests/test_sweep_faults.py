"""What happens to sweeps in real life: shared databases, stalled workers, slow locks, damaged files, terminated runs,
changed minds.
"""

import errno
import json
import os
import platform
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from conftest import write_toy_survey
from omegaconf import OmegaConf
from postgres import Postgres, why_not
from sweep_tools import TRAIN, command, environment, records, start, starts, sweep, trials, wait_for, write_sweep

from spectangle.errors import SpectangleError
from spectangle.files import redacted
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import ConfigurationFolder, sweep_record
from spectangle.sweeps import jobs, liveness, locks
from spectangle.sweeps.again import renew_configurations
from spectangle.sweeps.claims import Outcome
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.liveness import WorkerRecord, alive, living_workers, process_start
from spectangle.sweeps.locks import FolderLock, folder_lock
from spectangle.sweeps.pack import remove_empty_logs
from spectangle.sweeps.plan import Options, Plan
from spectangle.sweeps.slurm import HOLDING
from spectangle.sweeps.space import identity, override, parse_space, written
from spectangle.sweeps.status import StatusLine
from spectangle.sweeps.storage import Journal, open_storage
from spectangle.sweeps.study import Study
from spectangle.sweeps.worker import Worker

GRID = {"_target_": "optuna.samplers.GridSampler"}
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 3}


def make_plan(folder: Path, *space: str, sampler: dict = GRID, lr: float = 0.1, **options) -> Plan:
    config = OmegaConf.create({"lr": lr, "objective": "score"})
    parsed = parse_space(space or ["x=choice(0.1,0.2)"], grid=sampler is GRID)
    return Plan(folder.resolve(), parsed, config, ["score"], ["minimize"], sampler, None, Options(**options))


def finish(study: Study, claim, value: float | None = None) -> None:
    """Do what a worker does, with a run of one number."""
    run = Run(study.folder / claim.name, must_exist=False)
    score = sum(float(item) for item in claim.params.values()) if value is None else value
    ConfigurationFolder(run.path).write_record(name=claim.name, params=claim.params, config=study.plan.digest)
    run.write_metrics({"score": score})
    study.tell(claim, Outcome("complete", [score]))


def run_all(study: Study) -> list[dict]:
    done = []
    while not study.done:
        if claim := study.claim("worker"):
            finish(study, claim)
            done.append(claim.params)
    return done


# ---------------------------------------------------------------------- whose study it is


def test_folders_of_one_name_share_a_database_and_nothing_else(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    for place in ("a", "b"):
        assert len(run_all(Study(make_plan(tmp_path / place / "sweep", storage=url)))) == 2
    names = {sweep_record(tmp_path / place / "sweep")["study_name"] for place in ("a", "b")}
    assert len(names) == 2 and all(name.startswith("sweep-") for name in names)


def test_a_renamed_sweep_goes_on(tmp_path):
    run_all(Study(make_plan(tmp_path / "one", "x=interval(0,1)", sampler=TPE, n_trials=3)))
    (tmp_path / "one").rename(tmp_path / "two")
    study = Study(make_plan(tmp_path / "two", "x=interval(0,1)", sampler=TPE, n_trials=3))
    assert study.done and len(study.configurations) == 3
    (tmp_path / "two/sweep.json").write_text('{"half')
    assert Study(make_plan(tmp_path / "two", "x=interval(0,1)", sampler=TPE, n_trials=3)).done


def test_a_study_of_another_folder_is_refused(tmp_path):
    options = {"storage": f"sqlite:///{tmp_path}/study.db", "study_name": "mine"}
    Study(make_plan(tmp_path / "a", **options))
    with pytest.raises(SpectangleError, match="is that of the sweep in .*/a"):
        Study(make_plan(tmp_path / "b", **options))


def test_time_is_left_only_where_somebody_works(tmp_path):
    study = Study(make_plan(tmp_path / "a", "x=choice(0.1,0.2,0.3)"))
    line = StatusLine(study)
    study.tell(study.claim("worker"), Outcome("complete", [0.1], facts={"seconds": 30.0}))
    assert line.text() == "1/3 done, best score 0.1 (x=0.1)"
    study.claim("worker")
    assert line.text() == "1/3 done, 1 running, best score 0.1 (x=0.1), about 60 s left"


# ---------------------------------------------------------------------- dead, stalled and slow


def test_a_stalled_worker_that_comes_back_writes_nothing(tmp_path):
    """Stopped with all of its processes, it looks like a node that hangs; meanwhile another one takes its run and
    finishes it.
    """
    folder = write_sweep(tmp_path, params={"x": "choice(0.1)"}, retries=3, heartbeat_s=0.2)
    arguments = ["epochs=40", "epoch_s=0.2"]
    first = start(tmp_path, *arguments)
    wait_for(lambda: len((next(iter(folder.glob("*/epochs.log")), None) or Path(os.devnull)).read_text().split()) >= 2)
    family = [first.pid, *descendants(first.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    (record,) = (folder / "workers").glob("*.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"place": "another node"}))
    second = start(tmp_path, *arguments)
    wait_for(lambda: len(starts(folder)) and max(starts(folder).values()) == 2, 120)
    taken = (folder / "taken", *folder.glob("*/.owner"))[-1].read_text()
    for pid in family:
        with suppress(ProcessLookupError):  # on a busy machine one had ended just before it was stopped
            os.kill(pid, signal.SIGCONT)
    outputs = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    (owner,) = folder.glob("*/.owner")
    assert owner.read_text() == taken and max(starts(folder).values()) == 2
    lines = next(folder.glob("*/epochs.log")).read_text().split()
    assert [int(line) for line in lines] == sorted(int(line) for line in lines) and len(lines) <= 41
    assert [record["state"] for record in records(folder).values()] == ["complete"]


def children(pid: int) -> list[int]:
    with suppress(OSError):  # it has just ended
        return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    own = children(pid)
    return [*own, *(below for child in own for below in descendants(child))]


def test_a_spawned_run_that_dies_at_birth_holds_nobody_up(tmp_path):
    """Its config is larger than a pipe, which nobody empties: it came through one, and its worker waited for ever."""
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"}, start_method="spawn", retries=1)
    path = tmp_path / "toy.yaml"
    path.write_text(path.read_text() + f"filler: {'x' * 100_000}\n")
    process = start(tmp_path)
    runs: list[int] = []

    def born() -> bool:
        workers = [pid for pid in children(process.pid) if "spawn_main" in words(pid)]
        runs.extend(pid for worker in workers for pid in children(worker) if "spawn_main" in words(pid))
        return bool(runs)

    wait_for(born)
    os.kill(runs[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(records(folder)) == 2 and {record["state"] for record in records(folder).values()} == {"complete"}
    assert sorted(len(attempts) for attempts in by_configuration(folder).values()) == [1, 2]


def words(pid: int) -> str:
    """The command line of a process that may just have ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def by_configuration(folder: Path) -> dict[str, list]:
    """Attempts in the study by configuration."""
    found: dict[str, list] = {}
    for trial in trials(folder):
        found.setdefault(trial.user_attrs["configuration"], []).append(trial)
    return found


def test_processes_that_cannot_be_started_give_their_configurations_back(tmp_path, monkeypatch):
    """Too many files are open: a sentence, and no configuration has failed for that."""
    plan = make_plan(tmp_path / "sweep", preload=[])
    study = Study(plan)
    worker = Worker(plan, SimpleNamespace())  # pyright: ignore
    worker.record = WorkerRecord(plan.folder, 10)
    claims = [study.claim(worker.record.name) for _ in range(2)]

    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("spectangle.sweeps.worker.Attempt", full)
    with pytest.raises(SpectangleError, match=r"2 configurations could not be started \(Too many open files\)"):
        worker._start(study, claims, [], None)  # pyright: ignore
    assert [trial.user_attrs.get("interrupted") for trial in trials(plan.folder)] == [True, True]
    assert not study.failed and not study.done


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpectangleError, match="could not be made .*sweep.dir=DIR"):
        Study(make_plan(tmp_path / "file" / "sweep"))


def test_a_lock_that_cannot_be_written_leaves_no_empty_one(tmp_path, monkeypatch):
    """Who came next took its holder for dead, and waited for that."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", full)
        with pytest.raises(SpectangleError, match="No space left"), folder_lock(tmp_path):
            pass
    assert not list(tmp_path.iterdir())
    with folder_lock(tmp_path):
        pass


def test_a_configuration_whose_folder_was_deleted_is_a_row_all_the_same(tmp_path):
    """What its record said when it began is gone; how it ended is added to nothing."""
    plan = make_plan(tmp_path / "sweep")
    study = Study(plan)
    run_all(study)
    claim = study.claim("worker")
    assert claim is None
    first, _ = sorted(plan.folder.glob("*/trial.json"))
    first.write_text('{"state": "complete", "values": [0.1]}')
    board = Leaderboard(plan.folder)
    assert {entry.name for entry in board.entries} == {path.parent.name for path in plan.folder.glob("*/trial.json")}


def test_the_empty_log_of_a_pack_whose_worker_was_killed_does_not_stay(tmp_path):
    (tmp_path / "workers").mkdir()
    for name, text in (("pack-1", ""), ("pack-2", "a word"), ("worker-1", "")):
        (tmp_path / "workers" / f"{name}.log").write_text(text)
    remove_empty_logs(tmp_path)
    assert {path.name for path in (tmp_path / "workers").iterdir()} == {"pack-2.log", "worker-1.log"}


def test_a_worker_that_is_just_taking_a_configuration_is_not_taken_for_dead(tmp_path):
    """Between its two writes (running; by whom) the other one looks who is dead, then waits for the lock."""
    study = Study(make_plan(tmp_path, "x=choice(0.1,0.2)"))
    living = WorkerRecord(tmp_path, 10)
    for taken in (True, False):
        trial = study.study.ask()
        dead = study._dead()
        assert dead == {trial.number: None}
        if taken:
            trial.set_user_attr("worker", living.name)
        with folder_lock(tmp_path) as lock:
            study._renew(dead, lock)
        state = study.storage.get_trial(trial._trial_id).state.name
        assert state == ("RUNNING" if taken else "FAIL")  # who died between the two is dead


def process(code: str = "import time; time.sleep(60)") -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-E", "-c", code])


def test_a_worker_of_this_machine_lives_while_its_process_or_one_of_its_runs_does(tmp_path):
    """Whatever its heartbeat says; another process that got its number later is another one, and a zombie none."""
    worker, run = WorkerRecord(tmp_path, 1e-6), process()
    try:
        assert alive(worker.path) and living_workers(tmp_path) == {worker.name}
        own = {"pid": os.getpid(), "start": "1"}  # the number is taken by somebody who started at another time
        worker.facts |= own
        worker.set_children(run.pid)
        assert alive(worker.path)
        run.kill()
        wait_for(lambda: process_start(run.pid) is None)  # nobody has waited for it yet
        assert not alive(worker.path)
        assert living_workers(tmp_path) == set() and not worker.path.exists()
    finally:
        run.kill()
        run.wait()


def test_a_worker_that_was_taken_for_dead_learns_it_and_does_not_come_back(tmp_path):
    worker = WorkerRecord(tmp_path, 0.0)
    assert worker.beat()
    old = worker.path.stat().st_mtime - 100
    os.utime(worker.path, (old, old))
    assert worker.beat() and worker.path.stat().st_mtime > old + 50
    worker.path.unlink()
    worker.set_children(os.getpid())
    assert not worker.beat() and not worker.path.exists() and not alive(worker.path)
    lazy = WorkerRecord(tmp_path, 60)
    os.utime(lazy.path, (old, old))
    assert lazy.beat() and lazy.path.stat().st_mtime < old + 1  # none is due


@pytest.mark.parametrize(
    ("beats", "job", "expected"),
    [(11, None, True), (14, None, False), (11, "RUNNING", True), (1, "COMPLETED", False), (14, "RUNNING", False)],
)
def test_a_worker_of_another_node_is_told_by_its_heartbeat_and_its_job(tmp_path, monkeypatch, beats, job, expected):
    """Missing a few beats is no death: a file server may hide one. Its process number means nothing here, nor does our
    own clock.
    """
    monkeypatch.setattr("spectangle.sweeps.liveness.job_states", lambda jobs: dict.fromkeys(jobs, job))
    worker = WorkerRecord(tmp_path, 10)
    worker.facts |= {"place": "another node", "slurm_job": "7" if job else None}
    worker.write()
    seen = worker.path.stat().st_mtime - 10 * beats
    os.utime(worker.path, (seen, seen))
    wrong = SimpleNamespace(time=lambda: seen + (-1 if beats > 12 else 1e6), sleep=time.sleep)
    monkeypatch.setattr(liveness, "time", wrong)
    assert alive(worker.path) == expected
    assert living_workers(tmp_path) == ({worker.name} if expected else set())


def test_who_does_something_long_is_alive_and_comes_back_only_if_it_may(tmp_path):
    """Reading stars, waiting for a database: nothing is lost if another took over, and then it goes on."""
    before, last, mild = threading.active_count(), WorkerRecord(tmp_path, 0.0), WorkerRecord(tmp_path, 0.0)
    old = last.path.stat().st_mtime - 100
    os.utime(last.path, (old, old))
    mild.path.unlink()
    with last.beating(), mild.beating(), WorkerRecord(tmp_path, 0.0).beating():
        wait_for(lambda: last.path.stat().st_mtime > old + 50)
    revived = WorkerRecord(tmp_path, 0.0)
    with revived.beating(revive=True):
        revived.path.unlink()
        wait_for(revived.path.exists)
    assert not mild.path.exists() and threading.active_count() <= before


def test_process_numbers_mean_something_in_one_boot_and_namespace_of_a_host(monkeypatch):
    here = liveness.place()
    assert here == liveness.place() and here.startswith(platform.node() + "/") and here.count("/") == 2
    monkeypatch.setattr(os, "readlink", lambda name: "pid:[another container]")
    assert liveness.place() != here


def test_who_seems_dead_is_asked_for_twice(tmp_path, monkeypatch):
    """A child that has just been born, or a file that is just being replaced."""
    worker, answers = WorkerRecord(tmp_path, 10), [False, True]
    monkeypatch.setattr("spectangle.sweeps.liveness._alive", lambda *_: answers.pop(0))
    assert living_workers(tmp_path) == {worker.name} and worker.path.exists() and not answers


def test_a_record_that_is_being_written_is_a_sign_of_life(tmp_path):
    worker = WorkerRecord(tmp_path, 10)
    worker.path.write_text('{"pl')
    assert alive(worker.path) and living_workers(tmp_path) == {worker.name}


def test_a_lock_that_is_held_long_is_not_broken_and_a_dead_one_is(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "GRACE_S", 0.5)
    monkeypatch.setattr(locks, "REFRESH_S", 0.1)
    order = []

    def late() -> None:
        with folder_lock(tmp_path):
            order.append("second")

    with folder_lock(tmp_path) as lock:
        other = threading.Thread(target=late)
        other.start()
        time.sleep(1.5)
        assert lock.held
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    (tmp_path / "study.lock").write_text("a dead process")
    begin = time.monotonic()
    with folder_lock(tmp_path) as lock:
        assert lock.held and 0.4 < time.monotonic() - begin < 5
    assert not list(tmp_path.iterdir())


def test_a_holder_that_lost_its_lock_queues_nothing_more(tmp_path):
    plan = make_plan(tmp_path, "x=range(0,10)")
    study = Study(plan)
    before = len(study.trials)
    lost = FolderLock(tmp_path / "study.lock")
    assert not lost.held
    study.study.set_user_attr("set_aside", [trial.number for trial in study.trials])
    study._enqueue_grid(lost)
    assert before == 10 and len(study.trials) == 0


def test_a_point_that_was_queued_twice_runs_once(tmp_path):
    study = Study(make_plan(tmp_path, "x=choice(0.1,0.2)"))
    for params in ({"x": 0.1}, {"x": 0.2}):
        study.study.enqueue_trial(params, user_attrs={"configuration": identity(params)})
    assert len(run_all(study)) == 2
    assert Counter(trial.state.name for trial in trials(tmp_path)) == {"COMPLETE": 2}


def test_slurm_is_asked_once_and_not_under_the_lock(tmp_path, monkeypatch):
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    (tools / "squeue").write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n[ -e {tmp_path}/sweep/study.lock ] && echo LOCKED >> {calls}\necho "7 '
        '7_N/A RUNNING"\n'
    )
    (tools / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    study = Study(make_plan(tmp_path / "sweep"))
    (study.folder / "workers").mkdir()
    for number in range(6):
        facts = {
            "place": "elsewhere",
            "pid": 1,
            "start": "1",
            "heartbeat_s": 60,
            "slurm_job": str(number + 5),
        } | ({} if number else {"child": None})  # as an earlier version wrote it
        (study.folder / "workers" / f"w{number}.json").write_text(json.dumps(facts))
    study.claim("me")
    assert len(calls.read_text().splitlines()) == 1 and "-j 10,5,6,7,8,9" in calls.read_text()
    assert [path.stem for path in (study.folder / "workers").glob("*.json")] == [
        "w2"
    ]  # job 7; the others are forgotten


def test_one_forgotten_job_does_not_hide_the_others(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)

    def ask(asked):
        return (
            (1, [], "slurm_load_jobs error: Invalid job id specified")
            if "9" in asked
            else (0, [f"{job} {job}_N/A RUNNING" for job in asked], "")
        )

    monkeypatch.setattr(jobs, "_ask", ask)
    assert jobs.job_states(["8", "9"]) == {"8": "RUNNING", "9": "COMPLETED"}


# ---------------------------------------------------------------------- what an attempt counts for


def test_a_configuration_fails_for_good_after_its_retries_and_interruptions_are_none(tmp_path):
    """One retry: two failures end it, whatever was interrupted in between, and not before."""
    study = Study(make_plan(tmp_path, "x=choice(0.1)", retries=1, max_failure_rate=0))
    for number, state in enumerate(("interrupted", "failed", "interrupted", "interrupted", "failed")):
        assert not study.done and not study.failed and not study.too_many_failures
        claim = study.claim("worker")
        assert claim and claim.trial.number == number
        study.tell(claim, Outcome(state, reason=f"a reason {number}"))
    assert study.done and len(study.failed) == 1 and study.too_many_failures and study.claim("worker") is None
    assert ConfigurationFolder(tmp_path / study.failed[0]).record["reason"] == "a reason 4"


def test_half_of_the_configurations_may_fail_and_a_retry_that_succeeds_is_no_failure(tmp_path):
    study = Study(make_plan(tmp_path, "x=choice(0.1,0.2)", retries=1, max_failure_rate=0.5))
    for state in ("failed", "failed", "failed"):  # the first, the second, the first again
        study.tell(study.claim("worker"), Outcome(state))
    assert len(study.failed) == 1 and not study.too_many_failures
    claim = study.claim("worker")
    finish(study, claim)
    assert study.done and study.failed != [claim.name] and study.claim("worker") is None


def test_an_attempt_that_somebody_has_ended_stays_as_it_ended(tmp_path):
    """A worker that was taken for dead comes back with what its run found."""
    study = Study(make_plan(tmp_path, "x=choice(0.1)", retries=0))
    claim = study.claim("worker")
    assert not study.lost(claim)
    study.tell(claim, Outcome("failed", reason="its worker died"))
    assert study.lost(claim)
    study.tell(claim, Outcome("complete", [0.1]))
    (trial,) = trials(tmp_path)
    assert trial.state.name == "FAIL" and ConfigurationFolder(tmp_path / claim.name).record["state"] == "failed"
    again = Study(make_plan(tmp_path, "x=choice(0.1)", retries=1))
    claim = again.claim("worker")
    finish(again, claim)
    assert again.lost(claim)


def test_what_a_dead_worker_had_finished_is_kept_and_the_rest_runs_again(tmp_path):
    """It died between its run's last number and the word to the study, or before."""
    study, worker = Study(make_plan(tmp_path, retries=1)), WorkerRecord(tmp_path, 10)
    done, begun = study.claim(worker.name), study.claim(worker.name)
    Run(tmp_path / done.name, must_exist=False).write_metrics({"score": 0.7})
    worker.remove()
    again = study.claim(WorkerRecord(tmp_path, 10).name)
    first, second, third = trials(tmp_path)
    assert (first.state.name, first.values, second.state.name) == ("COMPLETE", [0.7], "FAIL")
    assert ConfigurationFolder(tmp_path / done.name).record["values"] == [0.7]
    assert (again.name, again.trial.number) == (begun.name, third.number)


@pytest.mark.parametrize(("states", "is_dead"), [("CR", False), ("RC", False), ("CC", True), ("C?", True)])
def test_a_configuration_is_alive_while_one_of_its_slurm_jobs_is(tmp_path, monkeypatch, states, is_dead):
    study = Study(make_plan(tmp_path))
    claim = study.claim("a controller that is gone")
    claim.trial.set_user_attr("jobs", ["1", "2"])
    known = {"C": "COMPLETED", "R": "RUNNING"}
    found = {job: known[state] for job, state in zip("12", states, strict=True) if state in known}
    monkeypatch.setattr("spectangle.sweeps.study.job_states", lambda asked: found if asked == ["1", "2"] else {})
    assert (claim.trial.number in study._dead()) == is_dead


def test_two_workers_draw_no_more_than_was_planned(tmp_path):
    """One has begun to draw and has no parameters yet."""
    study = Study(make_plan(tmp_path, "x=interval(0,1)", sampler=TPE, n_trials=1))
    study.study.ask().set_user_attr("worker", WorkerRecord(tmp_path, 10).name)
    assert study.claim("another") is None


def test_a_proposal_whose_worker_died_before_it_was_drawn_is_drawn_by_the_next(tmp_path):
    study = Study(make_plan(tmp_path, "x=interval(0,1)", sampler=TPE, n_trials=2))
    trial = study.study.ask()
    trial.set_user_attr("worker", "dead")
    trial.set_user_attr("proposal", 0)
    assert [study.claim("worker").trial.user_attrs["proposal"] for _ in range(1)] == [0]
    assert study.storage.get_trial(trial._trial_id).user_attrs["discarded"] and len(study.trials) == 1


def test_a_claim_that_fails_leaves_nothing_running(tmp_path, monkeypatch):
    study = Study(make_plan(tmp_path))

    def broken(*_):
        raise OSError("the file server hangs")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="hangs"):
        patched.setattr(study, "_register", broken)
        study.claim("worker")
    assert [trial.state.name for trial in trials(tmp_path)] == ["WAITING", "FAIL"][::-1]
    assert len(run_all(study)) == 2


# ---------------------------------------------------------------------- points


@pytest.mark.parametrize(
    ("text", "values"),
    [("1,1.0", [1, 1.0]), ("0,false", [0, False]), ("1,true,1.0", [1, True, 1.0]), ("choice(1,2,2)", [1, 2])],
)
def test_a_grid_keeps_what_only_python_thinks_equal(tmp_path, text, values):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    study = Study(make_plan(tmp_path, f"x={text}"))
    done = []
    while not study.done:
        claim = study.claim("worker")
        assert claim
        done.append(OverridesParser.create().parse_override(claim.overrides[-1]).value())
        finish(study, claim, 1.0)
    assert [(type(value), value) for value in done] == [(type(value), value) for value in values]


def test_values_of_a_config_are_written_as_hydra_reads_them():
    assert [written(value) for value in (None, True, 1e-3, "choice(1,2)", [1, None, [True]])] == [
        "null",
        "true",
        "0.001",
        "choice(1,2)",
        "[1,null,[true]]",
    ]
    assert override("a", None) == "a=null" and parse_space([f"a={written(None)}", "b=1,2"]).fixed == ["a=null"]


def test_proposals_do_not_depend_on_kills(tmp_path):
    """TPE in peace, and with every third attempt killed: the same ten points."""
    calm = run_all(Study(make_plan(tmp_path / "calm", "x=interval(0,1)", "y=interval(0,1)", sampler=TPE, n_trials=10)))
    study, killed = (
        Study(
            make_plan(tmp_path / "killed", "x=interval(0,1)", "y=interval(0,1)", sampler=TPE, n_trials=10, retries=5)
        ),
        0,
    )
    while not study.done:
        if claim := study.claim("worker"):
            if killed % 3 == 1:
                study.tell(claim, Outcome("failed", reason="killed"))
            else:
                finish(study, claim)
            killed += 1
    assert len(study.trials) > 10
    found = sorted(tuple(attempts[-1].params.values()) for attempts in study.configurations.values())
    assert found == sorted(tuple(params.values()) for params in calm)


# ---------------------------------------------------------------------- again


def test_what_lost_its_files_runs_again(tmp_path, capsys):
    study = Study(make_plan(tmp_path))
    run_all(study)
    name = next(iter(study.configurations))
    (tmp_path / name / "metrics.json").write_text("")
    renew_configurations(study)
    assert not study.done and [identity(params) for params in run_all(study)] == [name]
    assert "the results are gone" in capsys.readouterr().out


def test_stale_results_are_named_and_rerun_sets_them_aside(tmp_path, capsys):
    run_all(Study(make_plan(tmp_path)))
    with pytest.raises(SpectangleError, match=r"config \(lr\)"):
        Study(make_plan(tmp_path, lr=0.2))
    changed = Study(make_plan(tmp_path, lr=0.2, allow_change=True))
    renew_configurations(changed)
    names = list(changed.configurations)
    assert changed.done and f"sweep.rerun=[{','.join(names)}]" in capsys.readouterr().out
    changed.plan.options.rerun = names[:1]
    renew_configurations(changed)
    assert f"are kept: {names[1]}. Run" in capsys.readouterr().out
    assert len(list((tmp_path / ".aside").iterdir())) == 1 and len(run_all(changed)) == 1
    changed.plan.options.rerun = names[1:]
    renew_configurations(changed)
    assert len(run_all(changed)) == 1 and len(changed.trials) == 2  # the first's old attempt stays forgotten
    capsys.readouterr()
    changed.plan.options.rerun = []
    renew_configurations(changed)
    assert changed.done and not capsys.readouterr().out
    changed.plan.options.rerun = ["c0"]
    with pytest.raises(SpectangleError, match="names c0, which this sweep does not have"):
        renew_configurations(changed)


def test_what_runs_just_now_is_not_set_aside(tmp_path):
    """Also where an earlier attempt at it has ended; its files stay where its worker writes."""
    study = Study(make_plan(tmp_path, "x=choice(0.1)", retries=1))
    study.tell(study.claim("worker"), Outcome("failed"))
    claim = study.claim(WorkerRecord(tmp_path, 10).name)
    study.plan.options.rerun = [claim.name]
    with pytest.raises(SpectangleError, match=f"names {claim.name}, which a worker is running"):
        renew_configurations(study)
    finish(study, claim)
    assert study.done and (tmp_path / claim.name / "metrics.json").exists()


def test_a_configuration_that_took_two_attempts_is_mended_or_run_again_once(tmp_path, capsys):
    """Its record is damaged: the study knows what was in it. Its numbers are gone, whether it is asked for or not: it
    is queued once.
    """
    study = Study(make_plan(tmp_path, "x=choice(0.1)", retries=1))
    study.tell(study.claim("worker"), Outcome("failed", reason="it was killed"))
    claim = study.claim("worker")
    finish(study, claim, 0.5)
    folder = ConfigurationFolder(tmp_path / claim.name)
    (folder.path / "trial.json").write_text('{"na')
    renew_configurations(study)
    expected = {"name": claim.name, "state": "complete", "values": [0.5], "params": {"x": 0.1}, "attempts": 2}
    assert study.done and expected.items() <= folder.record.items() and folder.record["trial"] == claim.trial.number
    for asked in ([], [claim.name]):
        (folder.path / "metrics.json").unlink()
        study.plan.options.rerun = asked
        renew_configurations(study)
        assert ("the results are gone" in capsys.readouterr().out) == (not asked)
        assert [trial.state.name for trial in study.trials] == ["WAITING"]
        finish(study, study.claim("worker"), 0.5)


def test_a_configuration_runs_again_if_one_of_its_seeds_has_lost_its_numbers(tmp_path):
    study = Study(make_plan(tmp_path, "x=choice(0.1)", trial_seeds=[0, 1]))
    claim = study.claim("worker")
    for run in ConfigurationFolder(tmp_path / claim.name).runs([0, 1]):
        run.write_metrics({"score": 1.0})
    study.tell(claim, Outcome("complete", [1.0]))
    renew_configurations(study)
    assert study.done
    (tmp_path / claim.name / "seed=1" / "metrics.json").unlink()
    renew_configurations(study)
    assert not study.done


# ---------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    "damage", ['{"op_code": 5, "worker', '{"op_code": 5, "wor{"op_code":5}\n{"op_code":5}\n', "\x00\x00\x00"]
)
def test_half_a_line_in_the_journal_is_cut_off(tmp_path, damage, caplog):
    run_all(Study(make_plan(tmp_path)))
    with open(tmp_path / "study.log", "a") as file:
        file.write(damage)
    study = Study(make_plan(tmp_path))
    assert study.done and len(study.configurations) == 2 and "study.log was damaged" in caplog.text
    study.study.set_user_attr("more", 1)
    assert Study(make_plan(tmp_path)).study.user_attrs["more"] == 1


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "study.log")
    journal.append_logs([{"a": 1}])
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SpectangleError, match="free some space"):
        journal.append_logs([{"a": 2}])
    assert (tmp_path / "study.log").read_text() == '{"a":1}\n'


def full(file: int) -> None:
    raise OSError(28, "No space left on device")


def test_damaged_files_of_one_configuration_cost_one_configuration(tmp_path):
    folder = write_sweep(tmp_path)
    sweep(tmp_path)
    paths = sorted(folder.glob("c*"))
    (paths[0] / "metrics.json").write_text('{"score": 0.')
    (paths[1] / "trial.json").write_text("[1, 2")
    (folder / "sweep.json").write_text("")
    output = sweep(tmp_path)
    assert f"{paths[0].name}: finished, but the results are gone" in output
    assert sum(record["state"] == "complete" for record in records(folder).values()) >= 5
    assert starts(folder)[paths[0].name] == 2 and sum(starts(folder).values()) == 7


# ---------------------------------------------------------------------- options and storages


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"workers": None}, "sweep.workers is null; it must be a whole number"),
        ({"workers": 2.5}, "sweep.workers is 2.5"),
        ({"n_trials": "many"}, "sweep.n_trials is many"),
        ({"trial_seeds": 3}, r"trial_seeds is 3; it must be a list, for instance trial_seeds=\[3\]"),
        ({"trial_seeds": [0, -1]}, "trial_seeds is -1; a seed is a whole number"),
        ({"trial_seeds": [2**32]}, "a seed is a whole number between 0 and 4294967295"),
        ({"trial_seeds": [1, 1]}, "give different seeds"),
        ({"max_failure_rate": 2}, "must be a number between 0 and 1"),
        ({"trial_timeout_min": "long"}, "sweep.trial_timeout_min is long"),
        ({"rerun": "c1"}, "sweep.rerun is c1; it must be a list"),
        ({"dry_run": "maybe"}, "it must be true or false"),
    ],
)
def test_options_are_checked_at_the_start(option, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        Options(**option)


def test_every_sampler_is_tried_before_anything_starts(tmp_path, monkeypatch):
    for name in ("TPESampler", "RandomSampler", "CmaEsSampler", "NSGAIISampler", "GPSampler", "QMCSampler"):
        make_plan(
            tmp_path, "x=interval(0,1)", "y=interval(0,1)", sampler={"_target_": f"optuna.samplers.{name}"}
        ).rehearse()
    monkeypatch.setattr("optuna.samplers._cmaes.cmaes", optuna._imports._LazyImport("no_such_package"))
    node = {"_target_": "optuna.samplers.CmaEsSampler"}
    with pytest.raises(SpectangleError, match="cannot be used here: CmaEsSampler"):
        make_plan(tmp_path, "x=interval(0,1)", "y=interval(0,1)", sampler=node).rehearse()
    assert not list(tmp_path.iterdir())


def test_a_password_stays_out_of_every_file_and_message(tmp_path):
    secret = "postgresql://me:s3cret@127.0.0.1:9/stars"
    assert redacted(f"a {secret} b") == "a postgresql://me:***@127.0.0.1:9/stars b"
    with pytest.raises(SpectangleError, match=r"me:\*\*\*@") as error:
        open_storage(secret, tmp_path)
    assert "s3cret" not in str(error.value)
    plan = make_plan(tmp_path, storage=secret)
    assert "s3cret" not in json.dumps(plan.record())


def test_postgresql_without_a_driver_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpectangleError, match=r"pip install 'spectangle\[postgres\]'"):
        open_storage("postgresql://127.0.0.1/stars", tmp_path)


@pytest.mark.postgres
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_sweep_on_postgresql_keeps_its_password_to_itself(tmp_path):
    server = Postgres(tmp_path / "server" / "postgres").start()
    try:
        for place in ("a", "b"):  # two folders of one name in one database
            (tmp_path / place).mkdir()
            folder = write_sweep(tmp_path / place)
            sweep(tmp_path / place, f"sweep.storage={server.url}", "sweep.workers=2")
            assert Counter(trial.state.name for trial in trials(folder, server.url)) == {"COMPLETE": 6}
            assert set(starts(folder).values()) == {1} and len(records(folder)) == 6
            written_files = [path for path in folder.rglob("*") if path.is_file()]
            assert len(written_files) > 20 and not [path for path in written_files if b"s3cret" in path.read_bytes()]
    finally:
        server.stop()


# ---------------------------------------------------------------------- the real application


REAL = """
defaults: [config, {{override data: survey}}, {{override model: tiny}}, {{override hydra/sweeper: spectangle}},
  {{override hydra/sweeper/sampler: grid}}, _self_]
data: {{path: {folder}/toy.h5}}
threads: 1
trainer: {{max_epochs: 120}}
callbacks: {{regressor: null, probes: null, figures: null}}
hydra:
  {{mode: MULTIRUN, sweep: {{dir: "{folder}/sweep"}}, sweeper: {{retries: 0, params: {{model.latent: "choice(2)"}}}}}}
"""


def real_sweep(folder: Path, *arguments: str):
    import subprocess
    import sys

    line = [sys.executable, str(TRAIN), "-cd", str(folder), "-cn", "real", *arguments]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=folder
    )


@pytest.mark.slow
def test_a_terminated_run_is_interrupted_and_not_failed(tmp_path):
    """SIGTERM to the run alone, to the whole sweep, and then in peace: with Lightning, which takes the signal over."""
    write_toy_survey(tmp_path / "toy.h5", n=160, n_pixels=20)
    (tmp_path / "real.yaml").write_text(REAL.format(folder=tmp_path))

    def epochs() -> int:
        runs = [Run(path.parents[1]) for path in tmp_path.glob("sweep/*/.hydra/config.yaml")]
        return max((len(run.history) for run in runs), default=0)

    process = real_sweep(tmp_path)
    wait_for(lambda: epochs() > 3)
    os.kill(descendants(process.pid)[-1], signal.SIGTERM)  # the run
    wait_for(lambda: any(trial.user_attrs.get("interrupted") for trial in trials(tmp_path / "sweep")))
    before = epochs()
    wait_for(lambda: epochs() > before + 3)
    for pid in [process.pid, *descendants(process.pid)]:  # as scancel does
        os.kill(pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "the same command goes on" in output
    process = real_sweep(tmp_path)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    found = trials(tmp_path / "sweep")
    assert [trial.state.name for trial in found] == ["FAIL", "FAIL", "COMPLETE"]
    assert all(trial.user_attrs.get("interrupted") for trial in found[:2])
    (run,) = (Run(path.parents[1]) for path in tmp_path.glob("sweep/*/.hydra/config.yaml"))
    assert [row["epoch"] for row in run.history] == list(range(120)) and len(run.manifest["starts"]) == 3
    assert not stat.S_IMODE(os.stat(run.path).st_mode) & stat.S_IWOTH


optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_time_limit_that_comes_early_waits_until_the_worker_listens(tmp_path: Path):
    """It ended the worker while it was still importing: nothing was requeued, and nothing said."""
    write_sweep(tmp_path, params={"x": "choice(0.1)"})
    late = tmp_path / "sitecustomize.py"  # imports of a slow file system
    late.write_text(f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(1)\n")
    # -S for the program that holds the signal back: its own start is not the one that is slow
    line = [sys.executable, "-S", "-c", HOLDING, *command(tmp_path)]
    worker = subprocess.Popen(
        line, env=environment() | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / "begun").exists)
    worker.send_signal(signal.SIGUSR1)
    output, _ = worker.communicate(timeout=100)
    assert worker.returncode == 128 + signal.SIGUSR1 and "the same command goes on" in output


def test_what_was_interrupted_goes_on_before_anything_begins(tmp_path: Path):
    """With time limits shorter than a run all of a grid was begun before one was finished."""
    study = Study(make_plan(tmp_path, "x=choice(0.1,0.2,0.3)"))
    first = study.claim("worker")
    assert first is not None
    study.tell(first, Outcome("interrupted", reason="time limit"))
    fits = []
    again = study.claim("worker", lambda params: fits.append(params) or True)
    assert again is not None and again.name == first.name and fits == [first.params]
    study.tell(again, Outcome("failed", reason="a fault"))
    names = [claim.name for _ in range(3) if (claim := study.claim("worker"))]
    assert names[2] == first.name and len(set(names)) == 3  # what failed waits for its turn


def test_the_seconds_of_a_configuration_are_those_of_all_its_attempts(tmp_path: Path):
    study = Study(make_plan(tmp_path, "x=choice(0.1,0.2)"))
    for state, values, seconds in (("interrupted", None, 10.0), ("complete", [0.1], 5.5)):
        claim = study.claim("worker")
        assert claim is not None
        study.tell(claim, Outcome(state, values, facts={"seconds": seconds}))
    assert ConfigurationFolder(tmp_path / claim.name).record["seconds"] == 15.5
    assert study.claim("worker") is not None and "about 16 s left" in StatusLine(study).text()


def test_what_failed_with_another_config_is_tried_with_this_one(tmp_path: Path, capsys):
    """A path was mended, and the sweep said again that it is wrong."""
    plan = make_plan(tmp_path, "x=choice(0.1)", retries=0)
    study = Study(plan)
    claim = study.claim("worker")
    assert claim is not None
    ConfigurationFolder(tmp_path / claim.name).write_record(config=plan.digest)
    study.tell(claim, Outcome("failed", reason="there is no survey file"))
    renew_configurations(study)
    assert study.claim("worker") is None
    mended = Study(make_plan(tmp_path, "x=choice(0.1)", retries=0, lr=0.2, allow_change=True))
    renew_configurations(mended)
    assert "failed with another config; tried again" in capsys.readouterr().out
    again = mended.claim("worker")
    assert again is not None and again.name == claim.name
