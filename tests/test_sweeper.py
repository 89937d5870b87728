"""Sweeps: identity, exact grids, resume, failures, many workers, pruning, seeds."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from sweep_tools import TRAIN, records, start, starts, sweep, trials, wait_for, write_plain, write_sweep

from spectangle.errors import SpectangleError
from spectangle.sweeps.plan import Options
from spectangle.sweeps.space import identity, override, parse_space

# ---------------------------------------------------------------------- space and identity


def test_the_identity_ignores_order_and_spelling():
    one = identity({"a": 0.001, "b": "[64, 32]", "c": "first_pair"})
    assert one == identity({"c": "first_pair", "b": "[64,32]", "+a": "1e-3"})
    assert one != identity({"a": 0.001, "b": "[64, 32]", "c": "second_pair"})


def test_no_name_of_a_configuration_reads_as_a_number():
    assert all(isinstance(yaml.safe_load(identity({"x": number})), str) for number in range(3000))


@pytest.mark.parametrize("value", [True, None, 3, 0.1, 1e-07, "word", "a,b", "k=v", "[1,2]", "", "a b", "it's"])
def test_every_value_survives_the_way_to_hydra_and_back(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    item = OverridesParser.create().parse_override(override("key", value))
    assert not item.is_sweep_override()
    read = item.value()
    assert read == value or getattr(read, "text", None) == value or value == "[1,2]" and read == [1, 2]


def test_a_grid_has_every_point_once_in_a_readable_order():
    space = parse_space(["a=choice(1,2,2)", "b=range(0.3,0,-0.1)", "c=choice('x,y',[1,2])"], grid=True)
    points = list(space.points(None))
    assert len(points) == 2 * 3 * 2 == len({identity(point) for point in points}) == space.size
    assert [point["b"] for point in points[:6]] == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


def conditional(cfg, trial):
    """Give the smallest x a second parameter, and leave x = 0.3 out."""
    if trial.params["x"] == 0.1:
        trial.suggest_int("y", 1, 3)
    elif trial.params["x"] == 0.3:
        raise optuna.TrialPruned


def test_conditional_points_are_part_of_a_grid():
    points = list(parse_space(["x=choice(0.1,0.2,0.3)"], conditional, grid=True).points(None))
    assert points == [{"x": 0.1, "y": 1}, {"x": 0.1, "y": 2}, {"x": 0.1, "y": 3}, {"x": 0.2}]


def test_a_fixed_value_replaces_the_sweep_of_its_key():
    space = parse_space(["a=choice(1,2)", "b=1,2", "a=7"])
    assert list(space.swept) == ["b"] and space.fixed == ["a=7"]


def test_the_lambda_of_a_label_that_no_config_names_can_be_swept():
    words = ["lambdas.vsini=choice(1,2)", "++lambdas.vsini=choice(3,4)", "++lambdas.age=5", "x=6"]
    space = parse_space(words, grid=True)
    assert list(space.points(None)) == [{"lambdas.vsini": 3}, {"lambdas.vsini": 4}]
    assert space.fixed == ["++lambdas.age=5", "x=6"] and override("lambdas.vsini", 3) == "++lambdas.vsini=3"
    assert identity({"lambdas.vsini": 3}) == identity({"++lambdas.vsini": 3})


@pytest.mark.parametrize("overrides", [["a=interval(0,1)"], ["a=choice("]])
def test_what_cannot_be_swept_is_refused(overrides):
    with pytest.raises(SpectangleError):
        parse_space(overrides, grid=True)


def test_the_keys_of_the_config_are_the_options():
    node = yaml.safe_load((TRAIN.parent / "conf/hydra/sweeper/spectangle.yaml").read_text())
    assert set(node) - {"defaults", "_target_", "direction", "params"} == set(Options.__dataclass_fields__)


# ---------------------------------------------------------------------- a sweep and its end


def test_a_grid_runs_every_point_and_a_second_start_runs_none(tmp_path: Path):
    folder = write_sweep(tmp_path)
    sweep(tmp_path, "sweep.workers=2")
    found = records(folder)
    assert len(found) == 6 and all(record["state"] == "complete" for record in found.values())
    assert (
        set(starts(folder))
        == {identity(record["params"]) for record in found.values()}
        == {record["name"] for record in found.values()}
    )
    before = starts(folder)
    sweep(tmp_path)
    assert starts(folder) == before == dict.fromkeys(before, 1)
    assert [trial.params for trial in trials(folder)] == [{"x": x, "y": y} for x in (0.1, 0.2, 0.3) for y in (1, 2)]


def test_finished_runs_are_read_when_the_study_is_lost(tmp_path: Path):
    folder = write_sweep(tmp_path)
    sweep(tmp_path)
    (folder / "study.log").unlink()
    sweep(tmp_path)
    assert set(starts(folder).values()) == {1}
    assert Counter(trial.state.name for trial in trials(folder)) == {"COMPLETE": 6}


def test_tpe_goes_on_with_new_points_up_to_a_total(tmp_path: Path):
    folder = write_sweep(tmp_path, sampler="tpe", params={"x": "interval(0, 1)"}, n_trials=4)
    sweep(tmp_path, "hydra.sweeper.sampler.seed=1")
    assert len(records(folder)) == 4
    sweep(tmp_path, "hydra.sweeper.sampler.seed=1", "sweep.n_trials=7", "sweep.workers=2")
    assert len(records(folder)) == 7 and set(starts(folder).values()) == {1}


def test_a_small_space_ends_when_all_of_it_is_known(tmp_path: Path):
    folder = write_sweep(tmp_path, sampler="tpe", n_trials=50)
    sweep(tmp_path, "sweep.workers=2")
    assert len(records(folder)) == 6 and set(starts(folder).values()) == {1}


def test_another_space_or_config_in_the_same_folder_is_refused(tmp_path: Path):
    folder = write_sweep(tmp_path)
    sweep(tmp_path, "x=0.1,0.2")
    assert "differs: swept (x)" in sweep(tmp_path, code=1)
    for looking in ([], ["dry_run=true"]):
        refusal = sweep(tmp_path, "x=0.1,0.2", "epochs=3", *looking, code=1)
        assert "epochs" in refusal and "keeps its numbers" in refusal
        (folder / "sweep.json").unlink(missing_ok=True)  # a journal lies there all the same
    assert "0 to run" in sweep(tmp_path, "x=0.1,0.2", "dry_run=true")
    sweep(tmp_path, "sweep.allow_change=true")
    assert len(records(folder)) == 6 and set(starts(folder).values()) == {1}


def test_test_metrics_cannot_be_an_objective(tmp_path: Path):
    write_sweep(tmp_path)
    for name in ("test/latent/teff/mae", "largest_excess", "val/reconstruction + probe/teff/r2"):
        assert "they are read once" in sweep(tmp_path, f"objective='{name}'", code=1)


def test_a_dry_run_starts_nothing(tmp_path: Path):
    folder = write_sweep(tmp_path)
    output = sweep(tmp_path, "dry_run=true")
    assert "6 configurations" in output and identity({"x": 0.3, "y": 2}) in output and not folder.exists()
    assert "6 configurations" in sweep(tmp_path, "dry_run=true", "sweep.study_name=mine") and not folder.exists()


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ValueError: a deliberate failure"),
        ("exit", "exit code 3"),
        ("kill", "SIGKILL"),
        ("not_a_number", "score is nan"),
        ("infinite", "score is inf"),
    ],
)
def test_a_failure_is_one_failed_configuration(tmp_path: Path, how: str, reason: str):
    folder = write_sweep(tmp_path, params={"fail": f"choice(none, {how})", "y": "choice(1, 2)"}, retries=0)
    output = sweep(tmp_path, code=1)
    states = Counter(record["state"] for record in records(folder).values())
    assert states == {"complete": 2, "failed": 2} and "2 of 4 configurations failed" in output
    assert reason in records(folder)[f"fail={how} y=2"]["reason"]
    if how == "raise":
        assert "misbehave" in records(folder)[f"fail={how} y=2"]["traceback"]


def test_a_failure_is_tried_again_from_its_last_checkpoint(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"fail": "choice(raise, kill)"}, retries=2)
    sweep(tmp_path, "epochs=4", "fail_epoch=2", "fail_tries=1")
    sweep(tmp_path, "epochs=4", "fail=none,nothing", f"sweep.dir={tmp_path / 'other'}")
    assert set(starts(folder).values()) == {2}
    assert all(path.read_text().split() == list("1234") for path in folder.glob("*/epochs.log"))
    calm = {record["values"][0] for record in records(tmp_path / "other").values()}
    assert {record["values"][0] for record in records(folder).values()} == calm and len(calm) == 1


def test_more_retries_try_failed_configurations_again(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"fail": "choice(none, raise)"}, retries=0)
    sweep(tmp_path, "fail_tries=1", "epochs=3", code=1)
    sweep(tmp_path, "fail_tries=1", "epochs=3", code=1)
    assert sorted(starts(folder).values()) == [1, 1]
    sweep(tmp_path, "fail_tries=1", "epochs=3", "sweep.retries=1")
    assert sorted(starts(folder).values()) == [1, 2]


def test_too_many_failures_stop_the_sweep(tmp_path: Path):
    folder = write_sweep(
        tmp_path, params={"fail": "choice(raise, exit)", "y": "range(0, 5)"}, retries=0, max_failure_rate=0.2
    )
    assert "The sweep stopped" in sweep(tmp_path, code=1)
    assert len(starts(folder)) == 3


def test_a_run_that_hangs_is_stopped(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"fail": "choice(none, hang)"}, retries=0, trial_timeout_min=0.02)
    sweep(tmp_path, code=1)
    assert "trial_timeout_min" in records(folder)["fail=hang"]["reason"]


# ---------------------------------------------------------------------- death and interruption


def children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tmp_path: Path):
    folder = write_sweep(tmp_path, retries=1)
    process = start(tmp_path, "epochs=8", "epoch_s=0.1", "sweep.workers=2")
    wait_for(lambda: len(list(folder.glob("*/epochs.log"))) >= 2)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert len(records(folder)) == 6 and all(record["state"] == "complete" for record in records(folder).values())
    assert sorted(starts(folder).values()) == [1, 1, 1, 1, 1, 2]
    assert all([*dict.fromkeys(path.read_text().split())] == list("12345678") for path in folder.glob("*/epochs.log"))


def test_a_killed_sweep_leaves_nobody_behind_and_goes_on(tmp_path: Path):
    folder = write_sweep(tmp_path, retries=1)
    process = start(tmp_path, "epochs=8", "epoch_s=0.1", "sweep.workers=2")
    wait_for(lambda: len(list(folder.glob("*/epochs.log"))) >= 2)
    family = [grandchild for child in children(process.pid) for grandchild in [child, *children(child)]]
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 20)
    sweep(tmp_path, "epochs=8", "epoch_s=0.1", "sweep.workers=2")
    assert len(records(folder)) == 6 and Counter(starts(folder).values()) == {1: 4, 2: 2}


def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path: Path):
    folder = write_sweep(tmp_path, retries=0)
    process = start(tmp_path, "epochs=8", "epoch_s=0.1")
    wait_for(lambda: len(list(folder.glob("*/epochs.log"))) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130 and "goes on" in output
    assert [record["state"] for record in records(folder).values()] == ["interrupted"]
    sweep(tmp_path, "epochs=8", "epoch_s=0.1")
    assert all(record["state"] == "complete" for record in records(folder).values())


def test_two_commands_on_one_folder_share_the_work(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "range(0, 1, 0.05)"})
    processes = [start(tmp_path, "epoch_s=0.02", "sweep.workers=2") for _ in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    assert len(records(folder)) == 20 and set(starts(folder).values()) == {1}


def test_eight_workers_run_no_configuration_twice(tmp_path: Path):
    folder = write_sweep(tmp_path, sampler="random", params={"x": "range(0, 1, 0.1)", "y": "range(0, 4)"}, n_trials=24)
    sweep(tmp_path, "sweep.workers=8", "hydra.sweeper.sampler.seed=0")
    assert len(records(folder)) == 24 and set(starts(folder).values()) == {1}


def test_threads_are_divided_and_gpus_dealt_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from spectangle.sweeps.plan import Plan
    from spectangle.sweeps.worker import Worker, available_gpus

    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    available_gpus.cache_clear()
    plan = Plan(tmp_path, parse_space(["x=1,2"]), None, ["score"], ["minimize"], {}, None, Options())  # pyright: ignore
    found = [Worker(plan, None, slot, 4).environment() for slot in range(4)]  # pyright: ignore
    available_gpus.cache_clear()
    assert {each["OMP_NUM_THREADS"] for each in found} == {"2"}
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["2", "5", "2", "5"]


# ---------------------------------------------------------------------- objectives, seeds, pruning, storage


def test_two_objectives(tmp_path: Path):
    folder = write_sweep(
        tmp_path, sampler="nsgaii", direction=["minimize", "maximize"], params={"x": "interval(0, 1)"}, n_trials=4
    )
    sweep(tmp_path, "objective=[score,other]")
    assert all(len(record["values"]) == 2 for record in records(folder).values()) and len(records(folder)) == 4
    assert "one objective" in sweep(tmp_path, "objective=[score,other]", "hydra/sweeper/pruner=median", code=1)
    assert "directions" in sweep(tmp_path, "objective=[score,other]", "hydra.sweeper.direction=minimize", code=1)


def test_a_configuration_is_its_mean_over_seeds(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"})
    sweep(tmp_path, "trial_seeds=[1,3]")
    for record in records(folder).values():
        scores = [
            json.loads((folder / record["name"] / f"seed={seed}" / "metrics.json").read_text())["score"]
            for seed in (1, 3)
        ]
        assert record["values"] == [sum(scores) / 2] and record["spread"] == [
            pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
        ]


def test_one_configuration_may_be_repeated_with_other_seeds(tmp_path: Path):
    folder = write_sweep(tmp_path, params={})
    assert "varies nothing" in sweep(tmp_path, code=1)
    output = sweep(tmp_path, "trial_seeds=[1,3]", "x=0.1")
    [record] = records(folder).values()
    assert record["state"] == "complete" and len(record["spread"]) == 1
    assert "()" not in output and (folder / record["name"] / "seed=3" / "metrics.json").is_file()


def test_a_pack_has_room_for_the_seeds_of_a_configuration(tmp_path: Path):
    write_sweep(tmp_path)
    assert "the 3 runs of a configuration" in sweep(tmp_path, "sweep.pack=2", "trial_seeds=[1,2,3]", code=1)


def test_a_pruned_run_is_pruned_and_not_failed(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.5, 0.4, 0.3, 5, 6)"})
    pruner = [
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=2",
        "hydra.sweeper.pruner.n_warmup_steps=1",
    ]
    sweep(tmp_path, *pruner, "epochs=6")
    assert Counter(record["state"] for record in records(folder).values()) == {"complete": 3, "pruned": 2}
    assert Counter(trial.state.name for trial in trials(folder)) == {"COMPLETE": 3, "PRUNED": 2}


def test_any_optuna_storage_works(tmp_path: Path):
    folder, url = write_sweep(tmp_path), f"sqlite:///{tmp_path}/study.db"
    sweep(tmp_path, f"sweep.storage={url}", "sweep.workers=3")
    assert (
        Counter(trial.state.name for trial in trials(folder, url)) == {"COMPLETE": 6}
        and not (folder / "study.log").exists()
    )


def test_spawned_processes_work_too(tmp_path: Path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"})
    sweep(tmp_path, "sweep.start_method=spawn", "sweep.workers=2")
    assert len(records(folder)) == 2 and set(starts(folder).values()) == {1}


def test_hydras_own_sweeper_still_works(tmp_path: Path):
    write_plain(tmp_path)
    sweep(tmp_path, "-m", "x=0.1,0.2", f"hydra.sweep.dir={tmp_path}/multirun", name="plain")
    assert len(list(tmp_path.glob("multirun/*/metrics.json"))) == 2
