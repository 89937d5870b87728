"""A function on a GPU that is captured once and then replayed."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["CapturedFunction"]

log = logging.getLogger(__name__)
WARM_UP = 2  # calls before the first capture: libraries set themselves up
Captured = tuple[torch.cuda.CUDAGraph, list[Tensor], dict[str, Tensor]]


class CapturedFunction:
    """Call a function of tensors on a GPU as one CUDA graph: where there are hundreds of small kernels, launching them
    one by one takes longer than their arithmetic.

    The function has to work in place on tensors that stay where they are, and must neither wait for the GPU nor copy
    from the host. It is captured once for each set of shapes; where that fails, it is called as it is.

    Arguments:
        function: Of tensors on one device; returns tensors by name.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]]):
        self.function = function
        self.graphs: dict[Any, Captured] = {}
        self.calls, self.captures = 0, True

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """What the function returns; it is overwritten by the next call."""
        self.calls += 1
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if self.captures and self.calls > WARM_UP and shapes not in self.graphs:
            self._capture(shapes, inputs)
        if shapes not in self.graphs:
            return self.function(*inputs)
        graph, places, outputs = self.graphs[shapes]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return outputs

    def _capture(self, shapes: Any, inputs: tuple[Tensor, ...]) -> None:
        try:
            self.graphs[shapes] = self._captured(inputs)
        except RuntimeError as error:  # nothing has been computed yet
            self.captures = False
            reason = str(error).partition("\n")[0]
            log.warning("The steps are not captured as a CUDA graph, and take longer: %s", reason)

    def _captured(self, inputs: tuple[Tensor, ...]) -> Captured:
        """A graph, the tensors that it reads its inputs from, and those that it leaves its outputs in."""
        places, graph = [tensor.clone() for tensor in inputs], torch.cuda.CUDAGraph()
        pool = next((other.pool() for other, *_ in self.graphs.values()), None)  # they are never replayed side by side
        with _without_collections(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outputs = self.function(*places)
        return graph, places, outputs


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage while the block runs: a graph of a stack that is gone, freed in the middle of a capture, would
    end it.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
