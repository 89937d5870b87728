"""A run's line to the pack that trains for it: the run keeps everything that it has alone, but for the arithmetic."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

import torch
from omegaconf import DictConfig

from spectangle.data.module import SpectraDataModule
from spectangle.devices import chosen_device
from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.packs.alone import why_alone
from spectangle.packs.fit import Fit
from spectangle.packs.member import Member
from spectangle.packs.own_stack import OwnStack
from spectangle.packs.wire import receive, send
from spectangle.runs.sweep_link import link

__all__ = ["PackLine", "begin_fit", "fits_on_gpu", "in_pack", "joins_pack"]

log = logging.getLogger(__name__)
LOST = {"alone": "the process of the pack has ended"}
_line: "PackLine | None" = None  # of the run that this process trains now


class PackLine:
    """Let a pack train a model, epoch by epoch; a model whose pack is lost goes on alone, but for one on a GPU, which
    the run itself does not have: that is an error, and the next attempt goes on.

    Arguments:
        pipe: To the process of the pack.
    """

    in_company = True

    def __init__(self, pipe: Connection):
        self._pipe: Connection | None = pipe
        self._member: Member | None = None
        self.on_gpu = False
        self._asking = Lock()
        self.has_trained = False

    def __reduce__(self) -> Any:
        return _no_line, ()  # the model that is handed over leaves its line here

    def train_epoch(self, model: DisentanglingAutoencoder) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Have the model's epoch trained and load what came of it; return the sums of its metrics and the number of
        stars, or None: the epoch is its own to train.
        """
        self.has_trained = False
        if self._pipe is None and not self.on_gpu:
            return None
        try:
            with self._asking:
                answer: dict[str, Any] = LOST if self._pipe is None else self._ask(model, self._pipe)
        except (EOFError, OSError):
            answer = LOST
        if "alone" in answer:
            self.close()
            if self.on_gpu:
                raise SpectangleError(
                    f"The pack that trains this run on a GPU is lost: {answer['alone']}. The next attempt goes on from "
                    "the last checkpoint; a smaller sweep.pack takes less memory."
                )
            log.warning("This run goes on alone: %s.", answer["alone"])
            return None
        optimizers: Any = model.optimizers(use_pl_optimizer=False)
        assert self._member is not None
        self.has_trained = True
        return self._member.take_over(answer, optimizers)

    def end_training(self) -> None:
        """Let the others train on: what is measured now is this run's own. Where the pack has a GPU it still fits
        networks for it.
        """
        with self._asking:
            try:
                if self._pipe is not None and self._member is None:  # it was resumed after its last epoch
                    send(self._pipe, {"measures": True, "asks_device": True})
                    self.on_gpu = receive(self._pipe)["device"] != "cpu"
                elif self._pipe is not None and self.on_gpu:
                    send(self._pipe, {"measures": True, "asks_device": False})
            except (EOFError, OSError):
                self.close()
        if not self.on_gpu:
            self.close()

    def begin(self, fit: Fit) -> Callable[[], Any]:
        """Have the pack fit networks on its GPU, together with those that its other runs ask for, while this process
        does something else. What is returned waits for them; None: this process has to fit them.
        """
        future: Future[Any] = Future()

        def ask() -> None:
            with self._asking:  # the pipe carries one at a time
                try:
                    future.set_result(self._fitted(fit))
                except Exception as error:
                    future.set_exception(error)

        Thread(target=ask, daemon=True).start()  # a pack that is busy does not even read
        return future.result

    def _fitted(self, fit: Fit) -> Any:
        if self._pipe is None or not self.on_gpu:
            return None
        try:
            send(self._pipe, {"fit": fit})
            answer: dict[str, Any] = receive(self._pipe)
        except (EOFError, OSError):
            self.close()
            answer = {"unfitted": LOST["alone"]}
        if "unfitted" in answer:
            log.warning("This run fits networks itself, on the CPU: %s.", answer["unfitted"])
        return answer.get("fitted")

    def close(self) -> None:
        """Leave the pack: nobody waits for this run any more."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _ask(self, model: DisentanglingAutoencoder, pipe: Connection) -> dict[str, Any]:
        if self._member is None:
            self._join(model, pipe)
        send(pipe, {"epoch": model.current_epoch, "plateau": model.adversary.plateau.tolist()})
        return receive(pipe)

    def _join(self, model: DisentanglingAutoencoder, pipe: Connection) -> None:
        data: SpectraDataModule = model.trainer.datamodule  # pyright: ignore
        optimizers: Any = model.optimizers(use_pl_optimizer=False)
        self._member = Member.of(model, optimizers, data.seed, model.trainer.max_epochs or 1)
        stars = data.training_tensors
        kind = {"stars": _fingerprint(data), "batches": len(data.train_dataloader())}
        send(pipe, {"member": self._member, "precision": model.trainer.precision, **kind})
        welcome = receive(pipe)
        self.on_gpu = welcome["device"] != "cpu"
        if welcome["send_stars"]:
            send(pipe, [tensor.cpu().numpy() for tensor in stars])


def joins_pack(cfg: DictConfig) -> bool:
    """Whether this process belongs to a pack that can train what a config says; if it cannot, the pack is left."""
    if link.pack is not None and (reason := why_alone(cfg)):
        log.warning("This run goes on alone: %s.", reason)
        link.pack.close()
        link.pack = None
    return link.pack is not None


@contextmanager
def in_pack(model: DisentanglingAutoencoder, cfg: DictConfig) -> Iterator[None]:
    """Have a model trained by the pack that this process belongs to while the block runs; without one, on a GPU, by a
    stack of its own.
    """
    global _line
    if link.pack is not None:
        model.pack = _line = PackLine(link.pack)
        link.pack = None
    elif not why_alone(cfg):
        model.pack = OwnStack()
    try:
        yield
    finally:
        if _line is not None:
            _line.close()
        model.pack = _line = None


def fits_on_gpu() -> bool:
    """Whether networks of this process are fitted on a GPU: that of its pack, or its own."""
    return chosen_device().type == "cuda" if _line is None else _line.on_gpu


def begin_fit(fit: Fit) -> Callable[[], Any]:
    """Begin to fit networks, if this process belongs to a pack that does it on a GPU; what is returned gives them, and
    without a pack fits them then, on the device of the training.
    """
    begun = None if _line is None else _line.begin(fit)

    def fitted() -> Any:
        found = None if begun is None else begun()
        return fit.together([fit], chosen_device())[0] if found is None else found

    return fitted


def _fingerprint(data: SpectraDataModule) -> str:
    """Tells the stars that a run trains on, and the classes that its discriminators are asked for."""
    facts = json.dumps(data.fingerprint, sort_keys=True, default=str).encode()
    return hashlib.sha256(facts + data.train.classes.numpy().tobytes()).hexdigest()


def _no_line() -> None:
    return None
