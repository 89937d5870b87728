"""Functions of tensors that are captured once on a GPU and then replayed."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replay"]

log = logging.getLogger(__name__)
WARM_UP = 2  # calls before the first capture: libraries set themselves up
Captured = tuple[torch.cuda.CUDAGraph, list[Tensor], dict[str, Tensor]]


class Replay:
    """Call one function of tensors, on a GPU as a CUDA graph: where there are hundreds of small kernels, launching them
    one by one takes longer than their arithmetic.

    The function has to work in place on tensors that stay where they are, and must neither wait for the GPU nor copy
    from the host. It is captured once for each set of shapes; where that fails, it is called as it is, and, unless
    memory was wanting, nothing is captured in this process any more: torch has lost count of its memory pools then.

    Arguments:
        device: Where it works; anywhere but on a GPU it is simply called.
    """

    captures = True  # of the class: whether this process still does; of one: whether it does
    failed: list[torch.cuda.CUDAGraph] = []  # torch still asks those that it could not end

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.graphs: dict[Any, Captured] = {}
        self.calls = 0

    def __call__(self, function: Callable[..., dict[str, Tensor]], *inputs: Tensor) -> dict[str, Tensor]:
        """What the function returns, tensors by name; those of a graph are overwritten by its next call."""
        if not self.on_gpu:
            return function(*inputs)
        self.calls += 1
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if self.captures and self.calls > WARM_UP and shapes not in self.graphs:
            self._capture(function, shapes, inputs)
        if shapes not in self.graphs:
            return function(*inputs)
        graph, places, outputs = self.graphs[shapes]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return outputs

    def _capture(self, function: Callable[..., dict[str, Tensor]], shapes: Any, inputs: tuple[Tensor, ...]) -> None:
        """Keep a graph, the tensors that it reads its inputs from, and those that it leaves its outputs in."""
        places, graph = [tensor.clone() for tensor in inputs], torch.cuda.CUDAGraph()
        pool = next((other.pool() for other, *_ in self.graphs.values()), None)  # they are never replayed side by side
        try:
            with _undisturbed(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                outputs = function(*places)
        except RuntimeError as error:  # nothing has been computed yet
            self.captures = False
            if not isinstance(error, torch.cuda.OutOfMemoryError):
                Replay.captures = False
                Replay.failed.append(graph)
            reason = str(error).partition("\n")[0]
            log.warning("The steps are not captured as a CUDA graph, and take longer: %s", reason)
        else:
            self.graphs[shapes] = graph, places, outputs


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage while the block runs, since a graph that is freed in the middle of a capture ends it, and come
    back to this stream, also from a capture that failed.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.stream(torch.cuda.current_stream()):
            yield
    finally:
        if collects:
            gc.enable()
