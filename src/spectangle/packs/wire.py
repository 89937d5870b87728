"""Messages between a run and its pack."""

import pickle
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["receive", "send"]


def send(pipe: Connection, message: Any) -> None:
    """Send by value: what torch would share instead takes room in /dev/shm. Arrays travel one by one, uncopied, which
    takes a quarter of the time.
    """
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    pipe.send_bytes(pickle.dumps((rest, len(arrays))))
    for array in arrays:
        pipe.send_bytes(array.raw())


def receive(pipe: Connection) -> Any:
    """What the other end has sent; arrays are to be read only."""
    rest, n_arrays = pickle.loads(pipe.recv_bytes())
    return pickle.loads(rest, buffers=[pipe.recv_bytes() for _ in range(n_arrays)])
