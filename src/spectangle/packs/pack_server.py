"""The process of a pack: it trains the models of several runs as one and gives each its own back after every epoch."""

import logging
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spectangle.packs.fit import Fit
from spectangle.packs.member import Member
from spectangle.packs.stack import Stack
from spectangle.packs.wire import receive, send
from spectangle.threads import use_threads

__all__ = ["PackServer"]

log = logging.getLogger(__name__)
PATIENCE_S = 2.0  # after the first run that wants networks: the others will soon, if they measure too


class PackServer:
    """Train for the runs at the other ends of some pipes until all have left.

    While the runs validate and save an epoch, their next one is trained already, and waits until they ask for it. Where
    there is a GPU, the networks of their regressors and probes are fitted on it too, those of all runs that ask at the
    same time as one. A run that has ended, or was killed, is simply gone.

    Arguments:
        pipes: One for each run.
        threads: CPU threads.
        accelerator: Lightning's: on ``cpu``, a GPU is left alone.
    """

    def __init__(self, pipes: list[Connection], threads: int, accelerator: str = "cpu"):
        self.pipes = dict.fromkeys(pipes)  # in their order
        self.device = torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
        self.members: dict[Connection, Member] = {}
        self.kinds: dict[Connection, Any] = {}
        self.stars: dict[str, tuple[torch.Tensor, ...]] = {}
        self.stacks: dict[Any, tuple[list[Connection], Stack]] = {}
        self.ahead: dict[Connection, tuple[int, dict[str, Any]]] = {}
        self.requests: dict[Connection, dict[str, Any]] = {}
        self.measuring: set[Connection] = set()
        self.fits: dict[Connection, Fit] = {}
        self.patient_until = 0.0
        self.post = ThreadPoolExecutor(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # it ends when its runs have ended
        use_threads(threads)

    def serve(self) -> None:
        """Train epoch after epoch, and fit what runs want to have fitted between them and after the last."""
        while self.pipes:
            self._listen()
            if self._fits_are_due:
                self._fit()
            elif self._round_is_due:
                self._train_round()

    @property
    def _round_is_due(self) -> bool:
        """Whether all runs have asked for an epoch, but for those that have had their last."""
        return bool(self.requests) and self.pipes.keys() <= self.requests.keys() | self.measuring

    @property
    def _fits_are_due(self) -> bool:
        """Whether all runs have asked for something, and some for networks; some time after the first, whoever has."""
        everyone = self.pipes.keys() <= self.requests.keys() | self.fits.keys()
        return bool(self.fits) and (everyone or time.monotonic() > self.patient_until)

    def _listen(self) -> None:
        """Hear what the runs want, at least what they have said already, until there is something to do."""
        while self.pipes:
            due = self._round_is_due or self._fits_are_due
            silent = [pipe for pipe in self.pipes if pipe not in self.requests and pipe not in self.fits]
            patience = max(0.0, self.patient_until - time.monotonic()) if self.fits else None
            heard = wait(silent, 0.0 if due else patience)
            if due and not heard:
                return
            for pipe in heard:
                assert isinstance(pipe, Connection)
                try:
                    self._hear(pipe, receive(pipe))
                except (EOFError, OSError, pickle.UnpicklingError):  # a run that was killed may have said half of it
                    self._forget(pipe)
                except Exception as error:  # a GPU without room for one more: the others are not to fall with it
                    _reason("take a run", error)
                    self._forget(pipe)

    def _hear(self, pipe: Connection, message: dict[str, Any]) -> None:
        if "member" in message:
            self._welcome(pipe, message)
        elif "epoch" in message:
            self.requests[pipe] = message
        elif "fit" in message:
            self.patient_until = self.patient_until if self.fits else time.monotonic() + PATIENCE_S
            self.fits[pipe] = message["fit"]
        else:
            self.measuring.add(pipe)
            self._leave_training(pipe)
            if message["asks_device"]:
                send(pipe, {"device": self.device.type})

    def _train_round(self) -> None:
        """Give each run that trains the epoch that it asks for, in a thread, and train the one after it."""
        requests, self.requests = {pipe: self.requests[pipe] for pipe in self.pipes if pipe in self.requests}, {}
        self._train({pipe: request for pipe, request in requests.items() if pipe not in self.ahead})
        answers = {pipe: self._answer(pipe, request) for pipe, request in requests.items()}
        sent = self.post.submit(_send_all, answers)  # a run validates and saves while its next epoch is trained
        following = {pipe: self._next(pipe, requests[pipe]) for pipe in requests if "alone" not in answers[pipe]}
        self._train({pipe: request for pipe, request in following.items() if request is not None})
        for pipe in sent.result():
            self._forget(pipe)

    def _fit(self) -> None:
        """Fit the networks that runs have asked for, those of each kind as one bank."""
        fits, self.fits = self.fits, {}
        kinds: dict[Any, list[Connection]] = {}
        for pipe, fit in fits.items():
            kinds.setdefault((type(fit), fit.kind), []).append(pipe)
        for pipes in kinds.values():
            for pipe in _send_all(self._fitted({pipe: fits[pipe] for pipe in pipes})):
                self._forget(pipe)

    def _fitted(self, fits: dict[Connection, Fit]) -> dict[Connection, dict[str, Any]]:
        """What to answer to fits of one kind; where there is no room for all at once, one by one."""
        try:
            fitted = next(iter(fits.values())).together(list(fits.values()), self.device)
        except Exception as error:  # whatever it is, the runs are not to wait for it
            reason = _reason("fit", error)
        else:
            return {pipe: {"fitted": own} for pipe, own in zip(fits, fitted, strict=True)}
        # outside of the handler, whose error holds all that the fit had on the device
        if len(fits) > 1:
            return {pipe: self._fitted({pipe: fit})[pipe] for pipe, fit in fits.items()}
        return dict.fromkeys(fits, {"unfitted": reason})

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
            return [{"alone": _reason("train", error)}] * len(pipes)

    def _answer(self, pipe: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """The epoch that a run asks for."""
        epoch, answer = self.ahead.pop(pipe)
        if request["epoch"] != epoch:
            return {"alone": f"the pack has trained epoch {epoch}, and the run asks for epoch {request['epoch']}"}
        return answer

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
            stack.hand_back()  # what the members came with, or had in another stack, is in this one: it goes
        self.stacks[kind] = (pipes, stack)
        return stack

    def _leave_training(self, pipe: Connection) -> None:
        for kind, (pipes, stack) in list(self.stacks.items()):
            if pipe in pipes:
                stack.hand_back()
                del self.stacks[kind]
        for kept in (self.requests, self.ahead, self.members, self.kinds):
            kept.pop(pipe, None)

    def _forget(self, pipe: Connection) -> None:
        self._leave_training(pipe)
        self.fits.pop(pipe, None)
        self.measuring.discard(pipe)
        del self.pipes[pipe]
        pipe.close()


def _reason(what: str, error: Exception) -> str:
    """Why a run goes on alone; the log has all of it."""
    reason = f"the pack cannot {what} ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    log.exception(reason)
    return reason


def _send_all(answers: dict[Connection, dict[str, Any]]) -> list[Connection]:
    """Send each run its answer; return those that are no longer in the pack."""
    gone = []
    for pipe, answer in answers.items():
        try:
            send(pipe, answer)
        except OSError:  # killed meanwhile
            gone.append(pipe)
        else:
            gone += [pipe] * ("alone" in answer)
    return gone
