"""Files: whole or not at all, never written over by accident, and what killed processes left is removed."""

import os
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from spectangle.errors import SpectangleError
from spectangle.files import made_once, refuse_existing, remove_leftovers, whole_file, write_beside


def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "new" / "a.json"
    write_beside(path, "é")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == "é".encode() and list(path.parent.iterdir()) == [path]


def test_two_that_write_one_file_at_once_do_not_meet(tmp_path: Path):
    """Workers of a sweep: each has a part of its own, and the last one to be whole stays."""
    path = tmp_path / "a.json"
    with whole_file(path) as one:
        with whole_file(path) as other:
            one.write_text("one")
            other.write_text("other")
        assert path.read_text() == "other" and one.read_text() == "one"
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_parts_that_are_a_day_old_are_nobody_s(tmp_path: Path):
    """Those of this file alone, also where its name is a pattern."""
    path, day = tmp_path / "a[1].json", time.time() - 90_000
    for name in ("a[1].json.0123abcd.part", "a1.json.0123abcd.part", "a[1].json.part", "a[1].json"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (day, day))
    (tmp_path / "a[1].json.ffffffff.part").touch()
    remove_leftovers(path)
    left = {one.name for one in tmp_path.iterdir()}
    assert left == {"a1.json.0123abcd.part", "a[1].json.part", "a[1].json", "a[1].json.ffffffff.part"}


def test_an_output_that_is_there_may_be_replaced_if_asked(tmp_path: Path):
    refuse_existing(tmp_path / "a", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(SpectangleError, match="overwrite=true"):
        refuse_existing(tmp_path, overwrite=False)


def test_what_another_process_has_made_meanwhile_is_not_made_again(tmp_path: Path):
    path, made = tmp_path / "below" / "a.json", []

    def second() -> None:
        with made_once(path) as wanted:
            made.append(wanted)

    with made_once(path) as wanted:
        assert wanted
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        assert not made
        with pytest.raises(Timeout), made_once(path, wait=False):
            pass
        path.touch()
    waiting.join(10)
    assert made == [False]


def test_one_that_is_not_whole_is_made_again_by_one_process_and_the_lock_is_freed(tmp_path: Path):
    path = tmp_path / "a.json"
    path.touch()

    def has_content(one: Path) -> bool:
        return one.is_file() and one.stat().st_size > 0

    with pytest.raises(ValueError), made_once(path, has_content) as wanted:  # who makes it fails
        assert wanted
        with pytest.raises(Timeout), made_once(path, has_content, wait=False):
            pass
        raise ValueError
    FileLock(f"{path}.lock").acquire(timeout=0)
