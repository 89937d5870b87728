"""``.wandb`` files: what a run logged, as W&B keeps it on disk. Read them without a network, and merge those of one
run.

A file is a LevelDB log of protobuf records: a header of 7 bytes, then blocks of 32 KiB. A record that does not fit into
a block goes on in the next, and every piece has a header of its own: CRC-32 of type and data, length, type.
"""

import json
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record, RunExitRecord, RunPreemptingRecord  # pyright: ignore

from spectangle.errors import SpectangleError

__all__ = ["merge", "read", "records", "segments", "wait_for_end", "write_records"]

BLOCK, HEADER, PIECE = 32768, 7, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def segments(folder: Path) -> list[Path]:
    """The ``.wandb`` files of a run folder, oldest first: one for each time that the run was started."""
    found = [path for path in (folder / "wandb").glob("*run-*/run-*.wandb") if not path.parent.is_symlink()]
    return sorted(found, key=lambda path: path.parent.name.removeprefix("offline-"))


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a file; one that is still being written, or was cut off, ends where it ends.

    Raises:
        SpectangleError: This is no ``.wandb`` file.
    """
    data = path.read_bytes()
    if not data:
        return
    if data[:4] != b":W&B":
        raise SpectangleError(f"{path} is not a .wandb file; remove it, the run folder has the run's numbers.")
    position, whole = HEADER, b""
    while position + PIECE.size <= len(data):
        if (left := BLOCK - position % BLOCK) < PIECE.size:
            position += left
            continue
        crc, length, kind = PIECE.unpack_from(data, position)
        piece = data[position + PIECE.size : position + PIECE.size + length]
        position += PIECE.size + length
        if len(piece) < length or (kind and zlib.crc32(piece, zlib.crc32(bytes([kind]))) != crc):
            return
        whole = piece if kind in (FULL, FIRST) else whole + piece
        if kind in (FULL, LAST):
            yield Record.FromString(whole)


def write_records(path: Path, items: Iterable[Record]) -> None:
    """Write a ``.wandb`` file."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for number, item in enumerate(items, 1):
        item.num = number
        data, first = item.SerializeToString(), True
        while first or data:
            left = BLOCK - len(out) % BLOCK
            if left < PIECE.size:
                out += bytes(left)
                continue
            piece, data = data[: left - PIECE.size], data[left - PIECE.size :]
            kind = (FIRST if data else FULL) if first else (MIDDLE if data else LAST)
            out += PIECE.pack(zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
            first = False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)


def merge(paths: list[Path], target: Path, folder: Path | None = None) -> Path:
    """Write the segments of one run as a single file, as if the run had never stopped.

    The last start of an epoch wins, the first segment names the run, the last one says how it ended; a run
    that has not ended is preempted for W&B, until it is sent again. The same segments
    make the same history lines, so that uploading twice, or once more after another segment, writes the same lines
    again and adds the new ones.

    Arguments:
        paths: The segments, oldest first.
        target: The file to write.
        folder: The run folder, to find the files of artifacts where they lie now; it may have been moved.
    """
    lists = [list(records(path)) for path in paths]
    starts = [_first_step(items) for items in lists]
    kept: list[Record] = []
    for number, items in enumerate(lists):
        redone = min((step for step in starts[number + 1 :] if step is not None), default=None)
        for item in items:
            kind = item.WhichOneof("record_type")
            if kind in ("run", "header") and number and kept:
                continue
            if kind in ("preempting", "exit", "footer", "final") and number < len(lists) - 1:
                continue
            if kind == "history" and redone is not None and _step(item) >= redone:
                continue
            if kind == "run":
                for part in ("resume", "resumed", "starting_step", "branch_point"):
                    item.run.ClearField(part)  # sent whole: it goes on from nothing
            if kind == "artifact" and folder is not None:
                _relocate(item, folder)
            kept.append(item)
    if kept and not any(item.WhichOneof("record_type") == "exit" for item in kept):  # cut off, or still running
        kept += [Record(preempting=RunPreemptingRecord()), Record(exit=RunExitRecord(exit_code=255))]
    write_records(target, kept)
    return target


def _relocate(item: Record, folder: Path) -> None:
    """Let an artifact's files be those of a run folder, wherever it was when the run was made."""
    for entry in item.artifact.manifest.contents:
        parts = Path(entry.local_path).parts[1:]
        places = (folder.resolve() / Path(*parts[i:]) for i in range(len(parts)))
        entry.local_path = str(next((place for place in places if place.is_file()), entry.local_path))


def wait_for_end(path: Path, seconds: float = 5.0) -> None:
    """Wait until a run's last record is on the disk: W&B's own service writes it a moment after ``finish``."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not any(item.WhichOneof("record_type") == "exit" for item in records(path)):
        time.sleep(0.05)


def read(paths: Path | list[Path]) -> dict[str, Any]:
    """What a run logged: ``run`` (id, group, tags ...), ``config``, ``history``, ``summary``, ``metrics``,
    ``artifacts``, ``exit``.
    """
    found: dict[str, Any] = {
        "run": {},
        "config": {},
        "history": [],
        "summary": {},
        "metrics": {},
        "artifacts": [],
        "files": [],
        "exit": None,
    }
    for path in [paths] if isinstance(paths, Path) else paths:
        for item in records(path):
            _take(found, item)
    return found


def _take(found: dict[str, Any], item: Record) -> None:
    kind = item.WhichOneof("record_type")
    if kind == "run":
        run = item.run
        found["run"] = {
            "id": run.run_id,
            "entity": run.entity,
            "project": run.project,
            "group": run.run_group,
            "job_type": run.job_type,
        }
        found["run"] |= {"name": run.display_name, "tags": list(run.tags)}
        found["config"] |= _values(run.config.update)
    elif kind == "config":
        found["config"] |= _values(item.config.update)
    elif kind == "history":
        found["history"].append(_values(item.history.item))
    elif kind == "summary":
        for update in item.summary.update:
            keys = list(update.nested_key) or [update.key]
            node = found["summary"]
            for key in keys[:-1]:
                node = node.setdefault(key, {})
            node[keys[-1]] = json.loads(update.value_json)
    elif kind == "metric":
        found["metrics"][item.metric.name or item.metric.glob_name] = item.metric
    elif kind == "artifact":
        found["artifacts"].append(item.artifact)
    elif kind == "files":
        found["files"] += [file.path for file in item.files.files]
    elif kind == "exit":
        found["exit"] = item.exit.exit_code


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _first_step(items: list[Record]) -> int | None:
    return next((_step(item) for item in items if item.WhichOneof("record_type") == "history"), None)


def _step(item: Record) -> int:
    return item.history.step.num
