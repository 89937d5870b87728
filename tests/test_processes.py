"""Pieces of work in several processes."""

import os
import signal
import time

import pytest

from spectangle.errors import SpectangleError
from spectangle.processes import in_processes


def sleep(shared, seconds):
    time.sleep(seconds)
    return shared, seconds


def fail(shared, seconds):
    if seconds == 0:
        raise ValueError("no seconds")
    return sleep(shared, seconds)


def die(shared, number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_piece_is_done_once(workers):
    pieces = [(0.0,), (0.1,), (0.2,)]
    found = dict(in_processes(sleep, "all", pieces, workers, "wait."))
    assert found == {place: ("all", *piece) for place, piece in enumerate(pieces)}


def test_an_error_does_not_wait_for_what_else_is_done():
    start = time.monotonic()
    with pytest.raises(ValueError, match="no seconds"):
        list(in_processes(fail, None, [(0,), (60,), (60,), (60,)], 2, "wait."))
    assert time.monotonic() - start < 30


def test_who_stops_asking_ends_the_work():
    start = time.monotonic()
    work = in_processes(sleep, None, [(0.0,), (60,), (60,), (60,)], 2, "wait.")
    next(work)
    work.close()
    assert time.monotonic() - start < 30


def test_a_killed_process_is_a_sentence():
    with pytest.raises(SpectangleError, match="A process was killed.*; use fewer"):
        list(in_processes(die, None, [(0,), (1,)], 2, "use fewer."))
