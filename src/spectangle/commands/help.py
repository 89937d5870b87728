"""What ``--help`` prints: the groups and keys of a command with the comments that conf/ explains them with.

``--help`` alone shows the groups and the command's own keys, ``--help model`` the options and keys of a group,
``--help model=tiny`` those of one option, ``--help model.latent`` what one key means, ``--help sweep`` the sweeps.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from spectangle.configs.arguments import CONF, SWEEPS, sweep_file
from spectangle.errors import SpectangleError, did_you_mean

__all__ = ["command_help", "explained_keys", "key_comments"]

LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w@/-]+):(?:\s+(?P<value>.*?))?(?:\s*(?<!\S)#\s*(?P<comment>.*))?$")
VALUED = (
    "-cn",
    "-cd",
    "-cp",
    "--config-name",
    "--config-dir",
    "--config-path",
)  # flags whose value is a word of its own
SWEEPER = "hydra/sweeper"


def command_help(config_name: str, summary: str, arguments: list[str]) -> RenderableType:
    """The text for a command line that holds ``--help``.

    Arguments:
        config_name: Primary config of the command.
        summary: First line of the command's own file.
        arguments: The command line; its words that are no flags are the groups and keys that are asked for.

    Raises:
        SpectangleError: A word is neither a group nor a key.
    """
    values = {index + 1 for index, word in enumerate(arguments) if word in VALUED}
    asked = [word for index, word in enumerate(arguments) if not word.startswith("-") and index not in values]
    groups = _groups(CONF / f"{config_name}.yaml")
    if not asked:
        return _overview(config_name, summary, groups)
    return Group(*(_about(word, config_name, groups) for word in asked))


def key_comments(path: Path) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value and comment of each line of a config; a comment on lines of its own belongs to the key
    below.
    """
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if not found:
            above = [*above, line.strip().removeprefix("#").strip()] if line.strip().startswith("#") and parents else []
            continue
        indent = len(found["indent"])
        parents = [*((depth, key) for depth, key in parents if depth < indent), (indent, found["key"])]
        yield (
            ".".join(key for _, key in parents),
            found["value"] or "",
            " ".join([*above, found["comment"] or ""]).strip(),
        )
        above = []


def explained_keys(path: Path) -> list[tuple[str, str, str]]:
    """The same; a key that its file does not explain has the word of another option of its group."""
    group = sorted(path.parent.glob("*.yaml")) if path.parent != CONF else []
    others = {key: comment for other in group for key, _, comment in key_comments(other) if comment}
    return [(key, value, comment or others.get(key, "")) for key, value, comment in key_comments(path)]


def _overview(config_name: str, summary: str, groups: dict[str, tuple[str, str]]) -> RenderableType:
    shown = _columns(2)
    for name, (default, comment) in groups.items():
        options = ", ".join(f"{option}*" if option == default else option for option in _options(name))
        shown.add_row(
            f"  {name}",
            f"{escape(comment)}\n[dim]{escape(options)}[/dim]" if comment else f"[dim]{escape(options)}[/dim]",
        )
    command = "train" if config_name == "config" else config_name
    more = [
        "",
        "resume=RUN goes on with a run that was interrupted, sweep=NAME makes many runs: --help sweep lists them, "
        f"--help {SWEEPER} their keys (sweep.KEY, trial_seeds, dry_run), --help hydra/launcher those of SLURM.",
    ]
    return Group(
        escape(summary),
        *(["", "Groups, GROUP=OPTION (* is the default):", shown] if groups else []),
        *["", "Keys, KEY=VALUE:", _keys(CONF / f"{config_name}.yaml")],
        *(more if config_name == "config" else []),
        *[
            "",
            f"spectangle {command} --help GROUP, GROUP=OPTION or KEY explains one; --cfg job shows the whole "
            "config, --hydra-help Hydra's flags.",
        ],
    )


def _about(word: str, config_name: str, groups: dict[str, tuple[str, str]]) -> RenderableType:
    name, _, option = word.partition("=")
    if name == "sweep" and config_name == "config":
        return _about_sweeps(option)
    if not _options(name):
        return _about_key(name, config_name, groups)
    option = option or (groups[name][0] if name in groups else "") or _options(name)[0]
    if option not in _options(name):
        raise SpectangleError(
            f"{name}={option} does not exist. The options of {name} are: {', '.join(_options(name))}."
        )
    options = _columns(2)
    for other in _options(name):
        options.add_row(f"  {name}={other}", escape(_first_comment(CONF / name / f"{other}.yaml")))
    bases = re.findall(r"^  - (\w+)$", (CONF / name / f"{option}.yaml").read_text(encoding="utf-8"), re.M)
    tables = [_keys(CONF / name / f"{one}.yaml", _prefix(name)) for one in (*bases, option) if one in _options(name)]
    more = f", on top of {', '.join(bases)}" if bases else ""
    return Group(options, "", f"Keys of {name}={option}{more}:", *tables)


def _about_sweeps(name: str) -> RenderableType:
    """The sweeps that are shipped, or all that the file of one says of itself."""
    if name:
        return escape(sweep_file(name).read_text(encoding="utf-8").rstrip())
    sweeps = _columns(2)
    for path in sorted(SWEEPS.glob("*.yaml")):
        question = re.match(r"[^?;]*\??", _first_comment(path))  # what follows is for who opens the file
        sweeps.add_row(f"  sweep={path.stem}", escape(question[0] if question else ""))
    return sweeps


def _about_key(key: str, config_name: str, groups: dict[str, tuple[str, str]]) -> RenderableType:
    """A key and those below it, from the command's own config or from the default options of its groups."""
    files = [(CONF / f"{config_name}.yaml", "")]
    files += [(CONF / name / f"{default}.yaml", _prefix(name)) for name, (default, _) in groups.items() if default]
    if config_name == "config":
        files.append((CONF / SWEEPER / "spectangle.yaml", _prefix(SWEEPER)))
    if key.startswith("lambdas.") and "lambdas" in groups:  # of a label, which conf/ need not name
        key = "lambdas.others"
    tables = [_keys(path, prefix, key) for path, prefix in files]
    if not any(table.row_count for table in tables):
        raise SpectangleError(
            f"'{key}' is neither a group nor a key of {config_name}.{did_you_mean(key, list(groups))} --help "
            "alone shows both."
        )
    return next(table for table in tables if table.row_count)


def _keys(path: Path, prefix: str = "", below: str = "") -> Table:
    table = _columns(3)
    for key, value, comment in explained_keys(path):
        name = prefix + key
        if key.split(".")[0] in ("defaults", "hydra") or key.split(".")[-1].startswith("_"):
            continue
        if not below or name == below or name.startswith(f"{below}."):
            table.add_row(escape(f"  {name}"), escape(value), escape(comment))
    return table


def _groups(path: Path) -> dict[str, tuple[str, str]]:
    """Groups of a primary config with default option and comment; those of plugins are not among them."""
    lines = path.read_text(encoding="utf-8").partition("\ndefaults:\n")[2].splitlines()
    found = {}
    for line in lines:
        if not line.startswith("  - "):
            break
        if (item := LINE.match(line[4:])) and not line.startswith("  - override"):
            found[item["key"]] = (item["value"].replace("null", ""), item["comment"] or "")
    return found


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if re.fullmatch(r"[\w/]+", group) else []


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines[:3] if line.startswith("#") and not line.startswith("# @package")]
    return comments[0].removeprefix("#").strip() if comments else ""


def _prefix(group: str) -> str:
    """What stands before the keys of a group; some bring keys of the whole config, and those of sweeps have a short
    name.
    """
    short = {"experiment": "", "archive": "", "hydra/sweeper": "sweep."}
    return short.get(group, group.replace("/", ".") + ".")


def _columns(count: int) -> Table:
    """A table without lines whose first column is never cut."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for index in range(1, count):
        table.add_column(overflow="fold", max_width=30 if index < count - 1 else None)
    return table
