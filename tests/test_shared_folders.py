"""Folders that several people use: what is written obeys the umask, a colleague may go on, and reading needs no right
to write.
"""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from sweep_tools import command, environment, records, starts, write_sweep

from spectangle.runs.folder import Run

GROUP, ANNA, BERT, STRANGER = 61000, 61001, 61002, 61003
IS_ROOT = os.geteuid() == 0
as_others = pytest.mark.skipif(
    not (IS_ROOT and shutil.which("setpriv")), reason="only root may act for others, with setpriv"
)


def call(
    line: list[str], folder: Path, user: int | None = None, group: int = GROUP, umask: int = 0o002, code: int = 0
) -> str:
    """Run a command line with a umask, as another user if one is named; that one may read everything, and write by the
    modes alone.
    """
    caps = [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
    who = (
        []
        if user is None
        else [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            "--clear-groups",
            *caps,
            "--bounding-set=-all,+dac_read_search",
        ]
    )
    setting = environment() | {"MPLCONFIGDIR": str(folder)}
    done = subprocess.run(
        [*who, *line], cwd=folder, env=setting, umask=umask, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def report(folder: Path) -> list[str]:
    return [sys.executable, "-m", "spectangle", "report", f"sweep={folder}"]


def shared(folder: Path) -> Path:
    """Give a folder to a group, as a project's folder on a cluster is."""
    folder.mkdir()
    os.chown(folder, ANNA, GROUP)
    folder.chmod(0o2775)
    return folder


def closed_to_the_group(folder: Path) -> list[str]:
    """Files and folders that the group may not write."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_symlink() and not stat.S_IMODE(path.stat().st_mode) & 0o020
    ]


def test_every_file_of_a_run_obeys_the_umask(toy_survey, tmp_path):
    options = [
        "data=survey",
        f"data.path={toy_survey}",
        "model=tiny",
        "threads=1",
        "trainer.max_epochs=1",
        "probes=quick",
        "regressor.epochs=3",
    ]
    call([sys.executable, str(ROOT / "train.py"), *options, f"hydra.run.dir={tmp_path}/run"], tmp_path)
    assert Run(tmp_path / "run").finished and (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert closed_to_the_group(tmp_path / "run") == []


def test_every_file_of_a_sweep_obeys_the_umask(tmp_path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"})
    call(command(tmp_path, "sweep.workers=2", "hydra.sweeper.trial_seeds=[0,1]"), tmp_path)
    assert (folder / "report.html").is_file() and len(list(folder.glob("*/output.log"))) == 2
    assert closed_to_the_group(folder) == []


@as_others
def test_a_colleague_tries_again_what_failed(tmp_path):
    """Anna's sweep fails; Bert, of her group, goes on with it from her checkpoints."""
    place = shared(tmp_path / "project")
    folder = write_sweep(
        place, params={"x": "choice(0.1, 0.2)", "fail": "choice(none, raise)"}, retries=0, max_failure_rate=1.0
    )
    line = command(place, "fail_tries=1")
    assert "2 of 4 configurations failed" in call(line, place, ANNA, code=1)
    call([*line, "sweep.retries=1"], place, BERT)
    assert [record["state"] for record in records(folder).values()] == ["complete"] * 4 and sorted(
        starts(folder).values()
    ) == [1, 1, 2, 2]
    assert {path.stat().st_uid for path in folder.glob("*/metrics.json")} == {ANNA, BERT}
    assert {path.stat().st_gid for path in folder.rglob("*")} == {GROUP}


@as_others
def test_who_may_not_write_reads_the_leaderboard_and_is_told_so(tmp_path):
    place = shared(tmp_path / "project")
    folder = write_sweep(place, params={"x": "choice(0.1, 0.2)"})
    call(command(place), place, ANNA)
    (folder / "report.html").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for user, group in ((STRANGER, STRANGER), (BERT, GROUP)):
        folder.chmod(0o555)
        text = call(report(folder), place, user, group)
        assert (
            "2 complete" in text and "not written" in text and "Permission denied" in text and "Traceback" not in text
        )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    text = call(command(place, "sweep.n_trials=3"), place, STRANGER, STRANGER, code=1)
    assert "error:" in text and "Permission denied" in text and "Traceback" not in text


@as_others
def test_a_colleague_whose_umask_keeps_others_out_costs_a_sentence(tmp_path):
    place = shared(tmp_path / "project")
    folder = write_sweep(place, params={"x": "choice(0.1)", "fail": "choice(raise)"}, retries=0, max_failure_rate=1.0)
    call(command(place, "fail_tries=1"), place, ANNA, umask=0o022, code=1)
    text = call(command(place, "fail_tries=1", "sweep.retries=1"), place, BERT, code=1)
    assert "error:" in text and str(folder) in text and "Traceback" not in text


@pytest.mark.skipif(IS_ROOT, reason="root may write anywhere")
def test_a_read_only_folder_has_a_leaderboard(tmp_path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1)"})
    call(command(tmp_path), tmp_path)
    folder.chmod(0o555)
    text = call(report(folder), tmp_path)
    folder.chmod(0o755)
    assert "1 complete" in text and "not written" in text
