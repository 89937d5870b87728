"""Chunks of stars that are read at the same time, in as many threads as torch has."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from spectangle.inference.read import read_spectra
from spectangle.inference.reading import Reading
from spectangle.inference.spectra_input import StarChunk
from spectangle.inference.trained_networks import TrainedNetworks

__all__ = ["read_chunks"]


def read_chunks(models: Sequence[TrainedNetworks], chunks: Iterable[StarChunk]) -> Iterator[tuple[StarChunk, Reading]]:
    """Read a chunk per thread, in the order that they came in, while the next ones come from the disk.

    One chunk per thread, not one matrix product on all threads: threads that share a product wait for the slowest at
    every layer, which on a busy machine is most of the time. Meanwhile torch has one thread for each product, also for
    what else the program does.
    """
    threads = torch.get_num_threads()
    pending: deque[tuple[StarChunk, Future[Reading]]] = deque()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for chunk in chunks:
                pending.append(
                    (chunk, pool.submit(read_spectra, models, chunk.flux, chunk.flux_error, chunk.source_id))
                )
                if len(pending) > 2 * threads:
                    first, reading = pending.popleft()
                    yield first, reading.result()
            while pending:
                first, reading = pending.popleft()
                yield first, reading.result()
    finally:
        torch.set_num_threads(threads)
