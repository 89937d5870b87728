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

    While the runs validate and save an epoch, their next one is trained already, and waits until they ask for it. A run
    that has ended, or was killed, is simply gone.

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
        self.ahead: dict[Connection, tuple[int, dict[str, Any]]] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # it ends when its runs have ended
        use_threads(threads)

    def serve(self) -> None:
        """Train epoch after epoch."""
        while self.pipes:
            requests = self._requests()
            self._train({pipe: request for pipe, request in requests.items() if pipe not in self.ahead})
            for pipe, request in requests.items():
                self._answer(pipe, request)
            self._train({pipe: next_one for pipe in self.pipes if (next_one := self._next(pipe, requests[pipe]))})

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
            self.stars[key] = tuple(torch.tensor(values, device=member.device) for values in receive(pipe))
        self.members[pipe] = member
        self.kinds[pipe] = (member.shape, key, message["batches"], message["precision"])

    def _train(self, requests: dict[Connection, dict[str, Any]]) -> None:
        """Train an epoch of some runs, those of each kind together, and keep what there is to answer."""
        kinds: dict[Any, list[Connection]] = {}
        for pipe in requests:
            kinds.setdefault(self.kinds[pipe], []).append(pipe)
        for kind, pipes in kinds.items():
            answers = self._train_kind(kind, pipes, [requests[pipe] for pipe in pipes])
            self.ahead |= {pipe: (requests[pipe]["epoch"], answer) for pipe, answer in zip(pipes, answers, strict=True)}

    def _train_kind(self, kind: Any, pipes: list[Connection], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        _, key, batches, precision = kind
        for pipe, request in zip(pipes, requests, strict=True):  # the run decides when its lambda grows
            plateau = self.members[pipe].model.adversary.plateau
            plateau.copy_(torch.tensor(request["plateau"]))
        try:
            stack = self._stack(kind, pipes, precision)
            return stack.train_epoch(self.stars[key], [request["epoch"] for request in requests], batches)
        except Exception as error:  # whatever it is, the runs are not to wait for it
            self.stacks.pop(kind, None)
            reason = f"the pack cannot train ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            log.exception(reason)
            return [{"alone": reason}] * len(pipes)

    def _answer(self, pipe: Connection, request: dict[str, Any]) -> None:
        """Give a run the epoch that it asks for."""
        epoch, answer = self.ahead.pop(pipe)
        if request["epoch"] != epoch:
            answer = {"alone": f"the pack has trained epoch {epoch}, and the run asks for epoch {request['epoch']}"}
        try:
            send(pipe, answer)
        except OSError:  # killed meanwhile
            self._forget(pipe)
        else:
            if "alone" in answer:
                self._forget(pipe)

    def _next(self, pipe: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        """What a run will ask for next, if that is known: not when it ends, or when its last epoch decides."""
        member, epoch = self.members[pipe], request["epoch"] + 1
        if epoch >= member.epochs or member.model.adversary.schedule == "plateau":
            return None
        return request | {"epoch": epoch}

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
        self.ahead.pop(pipe, None)
        self.members.pop(pipe, None)
        self.kinds.pop(pipe, None)
        pipe.close()
