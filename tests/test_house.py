"""The house: imports run downwards only, in no circle, and at the top of a file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from commands import ROOT

SOURCE = ROOT / "src" / "spectangle"
ROOMS = (  # from the ground up: a room imports from those before it
    *(
        "version",
        "errors",
        "console",
        "signals",
        "streams",
        "threads",
        "processes",
        "devices",
        "metrics",
        "files",
        "page_style",
        "caching",
    ),
    *("configs", "runs", "survey", "figures", "synthetic", "archives", "data", "model", "packs", "evaluation"),
    *(
        "inference",
        "export",
        "generation",
        "explorer",
        "tracking",
        "training",
        "sweeps",
        "reports",
        "commands",
        "__main__",
    ),
)
ROOMS_OF_ARCHIVES = ("tables", "labels", "spectra", "gaia", "miles")  # the same; its own files are above them
LATE = {  # what is imported when it is used, and why
    "__init__": "spectangle.load needs torch, most commands do not",
    "commands.app": "only --help and errors need it",
    "commands.dashboard": "--help is fast",
    "commands.explore": "--help is fast",
    "commands.export": "--help is fast",
    "commands.generate": "--help is fast",
    "commands.predict": "--help is fast",
    "commands.prepare": "--help is fast",
    "commands.report": "--help is fast",
    "commands.sync": "--help is fast",
    "commands.train": "--help is fast, and a sweep's controller needs no torch",
    "packs.shared_stars": "a sweep's controller needs no torch",
    "reports.make": "each kind of report loads what it needs: torch, matplotlib",
    "sweeps.controller": "what belongs to SLURM and W&B is loaded where a sweep uses it",
    "sweeps.pack": "only the process of a pack needs torch",
    "sweeps.wandb_summary": "only the process that follows a sweep talks to W&B",
    "tracking.exported": "only runs that send their model need the readers of spectra",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def modules() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """(module of the project, whether a function imports it) for each import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spectangle":
            for alias in node.names:
                full = f"{node.module}.{alias.name}".removeprefix("spectangle.")
                yield (
                    (
                        full
                        if full in modules()
                        else (node.module or "").removeprefix("spectangle").lstrip(".") or "__init__"
                    ),
                    inside,
                )
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name.removeprefix("spectangle."), inside)
                for alias in node.names
                if alias.name.startswith("spectangle.")
            )
        yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_room_has_its_floor():
    assert {name.split(".")[0] for name in modules()} == {*ROOMS, "__init__"}


def test_the_map_for_newcomers_shows_every_room():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert shown == [room for room in reversed(ROOMS) if (SOURCE / room).is_dir()]
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml))`", page)
    assert len(named) > 20 and not [
        name for name in named if not any((root / name).is_file() for root in (SOURCE, ROOT))
    ]


def test_imports_run_downwards():
    floor = {room: number for number, room in enumerate(ROOMS)}
    upwards = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        for other, _ in imports(tree)
        if name != "__init__" and floor[name.split(".")[0]] < floor[other.split(".")[0]]
    ]
    assert not upwards


def test_imports_run_downwards_among_the_rooms_of_the_archives():
    floor = {room: number for number, room in enumerate((*ROOMS_OF_ARCHIVES, "archives"))}
    within = {name: tree for name, tree in modules().items() if name.startswith("archives.")}
    assert not [
        f"{name} imports {other}"
        for name, tree in within.items()
        for other, _ in imports(tree)
        if other in within and floor[name.split(".")[-2]] < floor[other.split(".")[-2]]
    ]


def test_no_files_import_each_other_in_a_circle():
    graph = {
        name: {other for other, _ in imports(tree)} - {name} for name, tree in modules().items() if name != "__init__"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_imports_inside_functions_are_those_that_have_a_reason():
    late = {name for name, tree in modules().items() if any(inside for _, inside in imports(tree))}
    assert late == set(LATE)


def test_no_two_files_have_one_name():
    names = [path.stem for path in SOURCE.rglob("*.py") if path.stem not in ("__init__", "__main__", "load", "figures")]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not [name for name in twice if not is_a_command(name)]


def is_a_command(name: str) -> bool:
    """A command's file and the one that does its work may share the name."""
    return (SOURCE / "commands" / f"{name}.py").is_file()


def test_the_controller_of_a_sweep_loads_no_torch():
    """It takes seconds, before dry_run shows a table or a job is submitted."""
    code = "import sys, spectangle.sweeps.controller; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
