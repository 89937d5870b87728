"""The explorer as a Bokeh server on this machine; the browser decodes, the server looks up any star of the survey."""

import functools
import getpass
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server

from spectangle.errors import SpectangleError
from spectangle.explorer.bundle import Bundle
from spectangle.explorer.template import fill_document, fill_message

__all__ = ["make_server", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

log = logging.getLogger(__name__)


def serve(make: Callable[[], Bundle], host: str = "127.0.0.1", port: int = 5006, open_browser: bool = False) -> None:
    """Serve the explorer until Ctrl-C.

    Arguments:
        make: Builds the bundle; what it refuses is shown as a page, and tried again at the next visit.
        host: Address to listen on; anything but loopback lets others in.
        port: Port to listen on; 0 = any free one.
        open_browser: Whether to open it in the browser.

    Raises:
        SpectangleError: The port is taken.
    """
    for name in ("bokeh", "tornado"):
        logging.getLogger(name).setLevel(
            logging.ERROR
        )  # a line for each file that the page fetches says nothing; we warn below
    make = functools.cache(make)
    server = make_server(make, host, port)
    try:
        make()  # before the first visit, which would wait for it
    except SpectangleError as error:
        log.error("%s (the page says so as well, and tries again)", error)
    server.start()
    shown = "localhost" if host in (*LOOPBACK, "0.0.0.0") else host
    log.info("The explorer is at http://%s:%d/  (Ctrl-C ends it)", shown, server.port)
    if host in LOOPBACK:
        log.info(
            "From another machine: ssh -N -L %d:localhost:%d %s@%s",
            server.port,
            server.port,
            getpass.getuser(),
            socket.gethostname(),
        )
    else:
        log.warning(
            "It listens on %s: whoever reaches this machine can read the survey's spectra. host=127.0.0.1 keeps "
            "it private.",
            host,
        )
    if open_browser:
        server.show("/")
    try:
        server.io_loop.start()
    finally:
        server.stop()


def make_server(make: Callable[[], Bundle], host: str = "127.0.0.1", port: int = 5006) -> Server:
    """A server that is not started yet."""
    make = functools.cache(make)  # an error is not kept: the next visit tries again

    def visit(document: Document) -> None:
        try:
            _connect(fill_document(document, make(), "served"), make())
        except SpectangleError as error:
            document.clear()
            fill_message(document, str(error))

    origins = None if host in LOOPBACK else ["*"]
    try:
        server = Server(
            {"/": Application(FunctionHandler(visit))}, address=host, port=port, allow_websocket_origin=origins
        )
    except OSError as error:
        raise SpectangleError(
            f"Port {port} of {host} cannot be used ({error.strerror}); choose another one: port={port + 1}."
        ) from None
    return server


def _connect(models: dict[str, Any], bundle: Bundle) -> None:
    """Answer the page's requests for stars that it does not hold."""

    def look_up(attribute: str, old: Any, new: dict[str, Any]) -> None:
        if not new["id"]:
            return
        try:
            answer = bundle.look_up(str(new["id"][0]))
        except SpectangleError as error:
            answer = {"error": str(error)}
        models["answer"].data = {"json": [json.dumps(answer)]}

    models["request"].on_change("data", look_up)
