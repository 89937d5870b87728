"""Online or offline: whether W&B can be reached from here, and whether it knows who we are. Keys are looked for, never
read out.
"""

import functools
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["MODES", "check_server", "choose_mode", "has_key", "reachable", "server"]

MODES = ("online", "offline", "auto")


def choose_mode(mode: str, timeout_s: float = 3.0) -> tuple[str, str]:
    """``online`` or ``offline``, and a line that says why (empty where it is what was asked for).

    ``auto`` asks the server once for each process. ``WANDB_MODE=offline`` in the environment holds for any mode.

    Raises:
        SpectangleError: The mode is unknown, or ``online`` has no key.
    """
    if mode not in MODES:
        raise SpectangleError(f"logger.mode is '{mode}'; it must be one of {', '.join(MODES)}.")
    if mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        return "offline", ""
    if not has_key():
        if mode == "online":
            raise SpectangleError(
                f"logger.mode is online, but there is no key for {server()}; run `wandb login` once, or take "
                "logger.mode=offline."
            )
        return "offline", f"W&B is offline: there is no key for {server()} (`wandb login`)"
    if mode == "auto" and not reachable(server(), timeout_s):
        return "offline", f"W&B is offline: {server()} does not answer from here"
    return "online", ""


def check_server(remedy: str) -> None:
    """Refuse what only the server can do where there is no key, or no way to it.

    Arguments:
        remedy: What to do where the server does not answer, beside going to another machine.

    Raises:
        SpectangleError: There is no key, or the server does not answer.
    """
    if not has_key():
        raise SpectangleError(f"There is no key for {server()}; run `wandb login` once on this machine.")
    if not reachable(server(), 10.0):
        raise SpectangleError(
            f"{server()} does not answer from here; run the same command on a machine with internet, {remedy}."
        )


def server() -> str:
    """Address of the W&B server, without a trailing slash."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address.rstrip("/")
    import wandb

    return str(wandb.setup().settings.base_url).rstrip("/")  # `wandb login --host` keeps it in a file


def has_key() -> bool:
    """Whether there is a key for the server: in the environment, or where ``wandb login`` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    names = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    host = urllib.parse.urlsplit(server()).netloc
    for path in (Path(name).expanduser() for name in names):
        try:
            if netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@functools.cache
def reachable(address: str, timeout_s: float) -> bool:
    """Whether a server answers anything at all; proxies of the environment are used."""
    try:
        urllib.request.urlopen(address, timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
