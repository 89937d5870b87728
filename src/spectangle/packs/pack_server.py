"""The process of a pack: it trains the models of several runs as one and gives each its own back after every epoch."""

import logging
import pickle
import signal
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spectangle.packs.line import receive, send
from spectangle.packs.member import Member
from spectangle.packs.stack import Stack
from spectangle.threads import use_threads

__all__ = ["PackServer"]

log = logging.getLogger(__name__)


class PackServer:
    """Train for the runs at the other ends of some pipes until all have left.

    An epoch starts when every run that is there has asked for it. A run that has ended, or was killed, is simply gone.

    Arguments:
        pipes: One for each run.
        threads: CPU threads.
        accelerator: Lightning's: on ``cpu``, a GPU is left alone.
    """

    def __init__(self, pipes: list[Connection], threads: int, accelerator: str = "cpu"):
        self.pipes = pipes
        self.device = torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        self.members: dict[Connection, Member] = {}
        self.kinds: dict[Connection, Any] = {}
        self.stars: dict[str, tuple[torch.Tensor, ...]] = {}
        self.stacks: dict[Any, tuple[list[Connection], Stack]] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # it ends when its runs have ended
        use_threads(threads)

    def serve(self) -> None:
        """Train epoch after epoch."""
        while self.pipes:
            requests = self._requests()
            kinds: dict[Any, list[Connection]] = {}
            for pipe in requests:
                kinds.setdefault(self.kinds[pipe], []).append(pipe)
            for kind, pipes in kinds.items():
                self._train(kind, pipes, [requests[pipe] for pipe in pipes])

    def _requests(self) -> dict[Connection, dict[str, Any]]:
        """What each run asks for: waits until all that are there have asked."""
        requests: dict[Connection, dict[str, Any]] = {}
        while missing := [pipe for pipe in self.pipes if pipe not in requests]:
            for pipe in wait(missing):
                assert isinstance(pipe, Connection)
                try:
                    message = receive(pipe)
                    if "member" in message:
                        self._welcome(pipe, message)
                    else:
                        requests[pipe] = message
                except (EOFError, OSError, pickle.UnpicklingError):  # a run that was killed may have said half of it
                    self._forget(pipe)
        return {pipe: requests[pipe] for pipe in self.pipes}

    def _welcome(self, pipe: Connection, message: dict[str, Any]) -> None:
        key = message["stars"]
        send(pipe, {"send_stars": key not in self.stars, "device": self.device.type})
        member: Member = message["member"].to(self.device)
        if key not in self.stars:
            self.stars[key] = tuple(torch.from_numpy(values).to(member.device) for values in receive(pipe))
        self.members[pipe] = member
        self.kinds[pipe] = (member.shape, key, message["batches"], message["precision"])

    def _train(self, kind: Any, pipes: list[Connection], requests: list[dict[str, Any]]) -> None:
        _, key, batches, precision = kind
        for pipe, request in zip(pipes, requests, strict=True):  # the run decides when its lambda grows
            plateau = self.members[pipe].model.adversary.plateau
            plateau.copy_(torch.tensor(request["plateau"]))
        try:
            stack = self._stack(kind, pipes, precision)
            epochs = [request["epoch"] for request in requests]
            answers: list[dict[str, Any]] = stack.train_epoch(self.stars[key], epochs, batches)
        except Exception as error:  # whatever it is, the runs are not to wait for it
            self.stacks.pop(kind, None)
            reason = f"the pack cannot train ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            log.exception(reason)
            answers = [{"alone": reason}] * len(pipes)
        for pipe, answer in zip(pipes, answers, strict=True):
            try:
                send(pipe, answer)
            except OSError:  # killed meanwhile
                self._forget(pipe)

    def _stack(self, kind: Any, pipes: list[Connection], precision: str) -> Stack:
        """The stack of some runs: a new one when one of them has come or gone."""
        before, stack = self.stacks.pop(kind, ([], None))
        if stack is not None and before != pipes:
            stack.hand_back()
        if stack is None or before != pipes:
            stack = Stack([self.members[pipe] for pipe in pipes], precision)
        self.stacks[kind] = (pipes, stack)
        return stack

    def _forget(self, pipe: Connection) -> None:
        for kind, (pipes, stack) in list(self.stacks.items()):
            if pipe in pipes:  # its memory is wanted by the next stack
                stack.hand_back()
                del self.stacks[kind]
        self.pipes.remove(pipe)
        self.members.pop(pipe, None)
        self.kinds.pop(pipe, None)
        pipe.close()
