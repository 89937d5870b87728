"""A PostgreSQL server of our own for tests: in a folder, on a free port of the loopback interface, run by the user
postgres.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
from pathlib import Path

__all__ = ["Postgres", "why_not"]


def why_not() -> str:
    """Why PostgreSQL cannot be started here; empty if it can."""
    if not _programs():
        return "PostgreSQL is not installed (Debian: postgresql)"
    if not importlib.util.find_spec("psycopg"):
        return "psycopg is not installed: pip install 'spectangle[postgres]'"
    return "" if os.geteuid() == 0 else "PostgreSQL is started as another user, which only root may do"


class Postgres:
    """A server whose URL has a password, which must turn up nowhere.

    Arguments:
        folder: Where all of its files go; made here.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://postgres:s3cret@127.0.0.1:{self.port}/postgres"

    def start(self) -> "Postgres":
        self.folder.mkdir(parents=True)
        shutil.chown(self.folder, "postgres")
        for parent in self.folder.parents:
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o055)  # the server's user must get here
        (self.folder / "password").write_text("s3cret")
        shutil.chown(self.folder / "password", "postgres")
        self._run(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-A",
            "scram-sha-256",
            "-U",
            "postgres",
            f"--pwfile={self.folder}/password",
        )
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-w", "-l", str(self.folder / "log"), "start"
        )
        return self

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_programs()[-1].parent / program), *arguments]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user="postgres", cwd=self.folder
        )


def _programs() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
