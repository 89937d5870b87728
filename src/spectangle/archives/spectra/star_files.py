"""Files of spectra, one star each: which there are, and whose they are."""

import re
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from spectangle.archives.spectra.spectrum_form import SpectrumForm
from spectangle.archives.spectra.table_spectrum import TEXT_ENDINGS, read_text
from spectangle.archives.tables.fits_file import header_of, open_fits
from spectangle.archives.tables.table_file import form_of
from spectangle.errors import SpectangleError

__all__ = ["FITS_ENDINGS", "find_spectra", "is_fits", "name_in_file", "name_of_file"]

FITS_ENDINGS = (".fits", ".fit", ".fts")


def find_spectra(spectra: str | Sequence[str], besides: Sequence[str | None] = ()) -> tuple[list[Path], list[str]]:
    """Find the files of spectra.

    Arguments:
        spectra: A folder (searched with its sub-folders), a pattern, a file, a text file with one path in a line
            (relative to it), or a list of files.
        besides: Files that are no spectra though they may lie among them, such as the table of labels.

    Returns:
        The files, and a sentence for each file that is none.

    Raises:
        SpectangleError: There is no file of a spectrum, or a listed file is not there.
    """
    other = {Path(path).resolve() for path in besides if path}
    files: list[Path] = []
    left_out: list[str] = []
    for path in _candidates(spectra):
        if reason := _no_spectrum(path, other):
            left_out.append(f"{path}: {reason}")
        else:
            files.append(path)
    if not files:
        endings = ", ".join(FITS_ENDINGS + TEXT_ENDINGS)
        raise SpectangleError(
            f"spectra={spectra} names no spectra: a folder, a pattern or a list of files was expected, ending in "
            f"{endings} (or .gz)."
        )
    return files, left_out


def is_fits(path: Path) -> bool:
    """Whether a file is FITS, by its content; one that is gzipped, by its name."""
    with open(path, "rb") as file:
        start = file.read(16)
    return form_of(start) == "FITS" or (
        form_of(start) == "text" and path.name.lower().removesuffix(".gz").endswith(FITS_ENDINGS)
    )


def name_of_file(path: Path, pattern: str | None) -> str | None:
    """The star's name in a file's name: the first group of a pattern, else the name without its endings; None where the
    pattern is not found.
    """
    if pattern is None:
        name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
        return name[: -len(Path(name).suffix)] if Path(name).suffix else name
    match = re.search(pattern, path.name)
    return match[1] if match and match.groups() else match[0] if match else None


def name_in_file(path: Path, keyword: str) -> str | None:
    """The star's name under a keyword of a file's FITS headers or ECSV meta; None where there is none.

    Raises:
        SpectangleError: The file cannot be read.
    """
    if is_fits(path):
        with open_fits(path, str(path)) as hdulist:
            header: dict[str, Any] = header_of(hdulist)
    else:
        header = _meta(path)
    by_upper = {key.upper(): value for key, value in header.items()}
    name = str(by_upper.get(keyword.upper(), "")).strip()
    return name or None


def _meta(path: Path) -> dict[str, Any]:
    return read_text(path, SpectrumForm())[1]


def _candidates(spectra: str | Sequence[str]) -> Iterator[Path]:
    if not isinstance(spectra, str):
        yield from _listed([Path(name) for name in spectra], "spectra")
        return
    path = Path(spectra)
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
    elif path.is_file():
        yield from _listed(names, spectra) if (names := _as_list(path)) else [path]
    else:
        yield from (Path(name) for name in sorted(glob(spectra, recursive=True)) if Path(name).is_file())


def _as_list(path: Path) -> list[Path]:
    """The paths in a text file whose first line ends as a spectrum's file does; empty where it is no such list."""
    if is_fits(path) or path.name.lower().endswith(".gz"):
        return []
    lines = [
        line.strip()
        for line in path.read_text(errors="replace").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if not lines or not lines[0].lower().removesuffix(".gz").endswith(FITS_ENDINGS + TEXT_ENDINGS):
        return []
    return [path.parent / line for line in lines]


def _listed(paths: list[Path], where: str) -> Iterator[Path]:
    for path in paths:
        if not path.is_file():
            raise SpectangleError(f"{where} names the file {path}, which is not there.")
        yield path


def _no_spectrum(path: Path, other: set[Path]) -> str | None:
    if path.resolve() in other:
        return "is the table of labels"
    if path.name.startswith((".", "_")):
        return "is hidden by its name"
    if not path.name.lower().removesuffix(".gz").endswith(FITS_ENDINGS + TEXT_ENDINGS):
        return "has the ending of no spectrum"
    return None
