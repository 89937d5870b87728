"""Threads: each process its share, and none that keeps a core while it waits."""

import json
import os
import platform
import subprocess
import sys

import pytest

from spectangle.threads import SPIN, let_threads_sleep

SHARES = """
import json, numpy, sklearn.neural_network, torch
from spectangle.threads import use_threads
from threadpoolctl import threadpool_info
use_threads(1)
print(json.dumps([torch.get_num_threads(), *(one["num_threads"] for one in threadpool_info())]))
"""


def test_every_library_gets_its_share():
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", SHARES], capture_output=True, text=True, env=environment)
    assert set(json.loads(done.stdout)) == {1}, done.stderr


@pytest.mark.parametrize(
    ("given", "spin"), [({}, str(SPIN)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_what_the_user_has_chosen_stays(monkeypatch, given, spin):
    for key in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(key, raising=False)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    let_threads_sleep()
    assert os.environ.get("GOMP_SPINCOUNT") == spin
    monkeypatch.undo()


def test_the_commands_set_it_before_torch_is_there():
    code = "import os, sys, spectangle.commands.app; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [str(SPIN), "False"]


@pytest.mark.parametrize(("before", "spin"), [("", str(SPIN)), ("import torch; ", "None")])
def test_a_program_that_loads_a_model_sets_it_where_it_still_helps(before: str, spin: str):
    """Reading took 3 to 7 times as long as by the command where another process wanted the cores."""
    code = f"import os; {before}import spectangle; spectangle.load; print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [spin], done.stderr


NEAR_ZERO = """
import torch
from spectangle.threads import use_threads
use_threads(2)
products = torch.full((4_000_000,), 1e-30) * 1e-10  # enough for both threads
print(int((products.view(torch.int32) != 0).sum()))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="torch cannot ask other processors for it")
def test_numbers_near_zero_which_are_slow_are_zero_in_every_thread():
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", NEAR_ZERO], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "0", done.stdout + done.stderr
