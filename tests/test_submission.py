"""What is checked before jobs are submitted: partition, folders that nodes may not see, room on the disk."""

import json
import os
import shutil
from pathlib import Path

import pytest

from spectangle.errors import SpectangleError
from spectangle.sweeps import submission
from spectangle.sweeps.submission import check_partition, check_submission, check_time, disk_too_small, not_shared

MOUNTS = (
    "/dev/sda1 / ext4 rw 0 0\nfs:/home /home nfs4 rw 0 0\nfs:/my\\040data /my\\040data lustre rw 0 0\n/dev/sdb1 "
    "/home/scratch xfs rw 0 0\n"
)


@pytest.mark.parametrize("place", ["/tmp/x", "/var/tmp/x", "/dev/shm/a/b"])
def test_temporary_folders_are_named_on_any_cluster(place):
    (sentence,) = not_shared({"cache": Path(place)}, elsewhere=False, mounts="")
    assert "every node has for itself" in sentence and "SPECTANGLE_CACHE" in sentence


def test_only_network_file_systems_are_seen_by_other_nodes():
    places = {
        "cache": "/home/me/cache",
        "sweep folder": "/my data/runs",
        "Python environment": "/home/scratch/venv",
        "survey": "/opt/x",
    }
    found = list(not_shared({what: Path(path) for what, path in places.items()}, mounts=MOUNTS))
    assert (
        len(found) == 2
        and "venv lies on a disk of this machine (xfs)" in found[0]
        and "/opt/x lies on a disk of this machine (ext4)" in found[1]
    )
    assert not list(not_shared({"survey": Path("/opt/x")}, elsewhere=False, mounts=MOUNTS))
    assert not list(not_shared({"survey": Path("/opt/x")}, mounts=""))  # no /proc: nothing is known


def test_partitions_are_compared_with_those_of_slurm():
    check_partition("gpu,cpu", ["cpu", "gpu"])
    check_partition("anything", [])
    check_partition(None, ["cpu"])
    with pytest.raises(SpectangleError, match=r"no partition 'gpus'.* Did you mean 'gpu'\? There are: cpu, gpu"):
        check_partition("cpu,gpus", ["cpu", "gpu"])


def test_a_time_limit_leaves_time_to_work(capsys):
    """Workers of two minutes that give their run back two minutes before the limit died at once, unseen."""
    for minutes, seconds in ((2, 120), (1, 200), (3, 170)):
        with pytest.raises(SpectangleError, match=r"leaves no time to work.* Give time_min=1\d or more"):
            check_time(minutes, seconds)
    check_time(240, 120)
    check_time(None, 120)
    assert not capsys.readouterr().out
    check_time(5, 120)
    assert "leaves each start of a job about 120 s" in " ".join(capsys.readouterr().out.split())


def test_the_disk_must_hold_the_runs_that_are_to_come(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    (sentence,) = disk_too_small(tmp_path / "not yet there", 108)
    assert "about 4.32 GB are needed" in sentence and "1 GB are free" in sentence
    assert not list(disk_too_small(tmp_path, 20))
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1/metrics.json").write_text(json.dumps({}))
    (tmp_path / "c1/last.ckpt").write_bytes(bytes(50_000))
    assert not list(disk_too_small(tmp_path, 108))  # a finished run tells that they are small


def test_slurm_is_asked_for_partitions_and_nodes(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "sinfo"
    tool.write_text("#!/bin/sh\necho 'cpu node[1-4]'\necho 'gpu node5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(submission, "cache_folder", lambda: Path("/tmp/cache"))
    options = {"partition": "gpu", "extra": {}}
    check_submission(tmp_path, options, 1)
    assert "warning: the cache /tmp/cache lies in /tmp" in capsys.readouterr().out
    with pytest.raises(SpectangleError, match="There are: cpu, gpu"):
        check_submission(tmp_path, options | {"partition": "main"}, 1)
    check_submission(tmp_path, {"partition": "main", "extra": {"clusters": "other"}}, 1)
    tool.write_text("#!/bin/sh\nexit 1\n")
    check_submission(tmp_path, options | {"partition": "main"}, 1)
