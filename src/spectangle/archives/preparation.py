"""From archive files to a survey file: labels, cuts, spectra in parallel, one survey, one report page.

The spectra go through part files in `<survey>.parts/`, each written whole or not at all, so that an interrupted run
goes on where it stopped; the folder is removed when the survey stands.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from rich.table import Table

from spectangle.archives.assemble import assemble, ids_in
from spectangle.archives.convert import Job
from spectangle.archives.gaia.gaia_files import GaiaFiles
from spectangle.archives.join import Catalogue, Overlap, join_catalogues
from spectangle.archives.labels.apogee import read_apogee
from spectangle.archives.labels.galah import read_galah
from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.labels.plain_labels import read_label_table
from spectangle.archives.parallel import read_spectra
from spectangle.archives.prepared import Prepared
from spectangle.archives.sample import Cuts, Funnel, apply_cuts
from spectangle.archives.sample_report import label_gaps, write_report
from spectangle.archives.source import (
    BringsLabels,
    Cited,
    Downloads,
    ExplainsLeftOut,
    FitsPixels,
    NamesStars,
    Source,
    check_source,
    groups_of,
)
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.console import console
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

__all__ = ["LabelSources", "prepare"]

SHOWN = 8  # files that are not used; the report has all
OF_CATALOGUE = {  # options of `labels` that are said of one file
    "apogee_release": "apogee",
    "apogee_columns": "apogee",
    "galah_release": "galah",
    "galah_columns": "galah",
    "galah_gaia": "galah",
    "columns": "table",
    "units": "table",
    "keep_columns": "table",
}
FEW = 5000  # stars: with fewer, experiment=small_survey is the preset


@dataclass(frozen=True)
class LabelSources:
    """Where labels come from.

    Arguments:
        apogee: allStar FITS file of APOGEE DR17 or DR16, or of SDSS DR19.
        galah: allstar FITS file of GALAH DR3 or DR4.
        galah_gaia: GALAH DR3's Gaia value-added table, for G.
        apogee_release, galah_release: Which release it is; None: found from its columns.
        apogee_columns, galah_columns: {source_id, g_mag, snr, label, label_error or flag: column} where the file has
            others; null: none.
        table: Any table with source_id and labels.
        columns: {label: column} of `table`; None takes every column that can be a label.
        units: {label: unit} in which the survey keeps the labels of `table`.
        id_column: Column of `table` with the Gaia ids.
        keep_columns: Other columns of `table` that the survey keeps, such as the instrument.
        priority: Which catalogue a star in several is taken from, first wins.
    """

    apogee: str | None = None
    galah: str | None = None
    galah_gaia: str | None = None
    apogee_release: str | None = None
    galah_release: str | None = None
    apogee_columns: dict[str, str | None] | None = None
    galah_columns: dict[str, str | None] | None = None
    table: str | None = None
    columns: dict[str, str] | None = None
    units: dict[str, str] | None = None
    id_column: str = "source_id"
    keep_columns: Sequence[str] = ()
    priority: Sequence[str] = ("table", "apogee", "galah")

    @property
    def named(self) -> list[str]:
        """The catalogues that are given."""
        return [name for name in ("apogee", "galah", "table") if getattr(self, name) is not None]

    @property
    def files(self) -> list[str]:
        """All files that are given."""
        return [str(path) for path in (self.apogee, self.galah, self.galah_gaia, self.table) if path is not None]

    @property
    def options(self) -> dict[str, object]:
        """{option: value} of those that are not at their default."""

        def plain(value: object) -> object:
            return (list(value) if isinstance(value, tuple) else value) or None  # a config has {} and lists

        given = {field.name: (plain(getattr(self, field.name)), plain(field.default)) for field in fields(self)}
        return {name: value for name, (value, default) in given.items() if value != default}

    def refuse_unread(self, archive: str, keys: Mapping[str, str]) -> None:
        """Refuse what an archive that brings its own labels would not read.

        Arguments:
            archive: Its name.
            keys: See :attr:`~spectangle.archives.source.BringsLabels.label_keys`.

        Raises:
            SpectangleError: Names an option, and what to write instead.
        """
        for name, value in self.options.items():
            instead = keys.get(name)
            if instead != f"labels.{name}":
                advice = f"Write {instead} instead." if instead else "Leave it out."
                raise SpectangleError(
                    f"labels.{name}={_as_typed(value)} came, and the archive {archive} brings its own labels: it "
                    f"would not be read. {advice}"
                )

    def refuse_homeless(self) -> None:
        """Refuse what is said of a catalogue that is not given; `id_column` may come with an archive's config.

        Raises:
            SpectangleError: Names the option and the catalogue.
        """
        for name, value in self.options.items():
            catalogue = OF_CATALOGUE.get(name)
            if catalogue and catalogue not in self.named:
                raise SpectangleError(
                    f"labels.{name}={_as_typed(value)} came without labels.{catalogue}, and would not be read: it "
                    f"is said of that file. Give labels.{catalogue}=..., or leave it out."
                )

    def read(self, bad: BadRows) -> list[LabelTable]:
        """Read those that are named, in the order of priority."""
        self.refuse_homeless()
        readers = {
            "apogee": lambda path: read_apogee(path, self.apogee_release, self.apogee_columns),
            "galah": lambda path: read_galah(path, self.galah_gaia, self.galah_release, self.galah_columns),
            "table": lambda path: read_label_table(
                path, bad, self.columns, self.units, self.id_column, keep_columns=self.keep_columns
            ),
        }
        if missing := set(self.named) - set(self.priority):
            raise SpectangleError(
                f"labels.priority={list(self.priority)} does not say where {missing.pop()} comes; name every "
                "catalogue that you give."
            )
        tables = {name: readers[name](getattr(self, name)) for name in self.priority if name in self.named}
        if "table" in tables and len(tables) > 1 and not self.columns:
            shared = set.intersection(*(set(table.labels) for name, table in tables.items() if name != "table"))
            tables["table"] = tables["table"].only(
                shared, "the other catalogues do not have them; labels.columns names what to take"
            )
        return list(tables.values())


def _as_typed(value: object) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {inner}' for key, inner in value.items())}}}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def prepare(
    archive: Source,
    survey: str | Path,
    labels: LabelSources | None = None,
    cuts: Cuts | None = None,
    pixels: Pixels | None = None,
    workers: int = 1,
    max_bad_rows: int = 0,
    overwrite: bool = False,
    report: bool = True,
) -> Prepared | None:
    """Make a survey file from an archive's spectra and catalogues of labels.

    Arguments:
        archive: Source of spectra: :class:`GaiaFiles`, :class:`Plain` ..., or one of your own.
        survey: The file to write.
        labels: Catalogues; not needed where the archive brings its own labels.
        cuts: Of the sample.
        pixels: Of the survey.
        workers: Processes that read files.
        max_bad_rows: Rows that may be skipped in all.
        overwrite: Whether an existing survey is replaced.
        report: Whether ``<survey>.html`` is written as well.

    Returns:
        What was made; None where spectra were only downloaded, because no labels were given.

    Raises:
        SpectangleError: Anything wrong with the input, named by file and row.
    """
    survey = Path(survey)
    if survey.exists() and not overwrite:
        raise SpectangleError(f"{survey} exists already; choose another name with survey=..., or say overwrite=true.")
    check_source(archive)
    if labels is not None and not labels.named and isinstance(archive, Downloads):
        labels.refuse_homeless()
        return _only_download(archive)
    if labels is not None and isinstance(archive, GaiaFiles):
        archive.besides[:] = labels.files
    cuts, funnel, bad = cuts or Cuts(), Funnel(), BadRows(max_bad_rows)
    tables = _tables(archive, labels or LabelSources(), bad)
    catalogue, overlaps = _catalogue(tables, cuts, funnel)
    origin = _origin(archive, catalogue)
    job = _job(archive, pixels or Pixels(), None if cuts.unlabelled else catalogue.source_id, survey, max_bad_rows)
    parts = read_spectra(job, groups_of(archive), workers)
    if cuts.unlabelled:
        named = np.concatenate([table.source_id for table in tables])
        others = np.setdiff1d(ids_in(parts), named)
        catalogue = catalogue.with_unlabelled(others, archive.star_names if isinstance(archive, NamesStars) else {})
        funnel.add("sample", f"and {len(others):,} spectra of stars in no table", len(catalogue.source_id))
    try:
        tally = assemble(parts, catalogue, cuts, funnel, bad, survey, origin, archive.release)
    finally:
        _print_funnel(funnel, overlaps)
    result = Prepared(survey, funnel, overlaps, tally, bad, bad.unused + _left_out(archive, catalogue, survey))
    _finish(result, job.folder, report)
    return result


def _only_download(archive: Downloads) -> None:
    paths = archive.download()
    console.print(
        f"{len(paths)} file(s) in {archive.folder}. Next: spectangle prepare spectra={archive.folder} "
        "labels.apogee=... survey=my.h5",
        markup=False,
    )


def _tables(archive: Source, labels: LabelSources, bad: BadRows) -> list[LabelTable]:
    name = type(archive).__name__
    if isinstance(archive, BringsLabels):
        labels.refuse_unread(name, archive.label_keys)
    own = archive.labels(bad)
    if own is not None and not isinstance(archive, BringsLabels):
        labels.refuse_unread(name, {})
    tables = labels.read(bad) if own is None else [own]
    for note in (note for table in tables for note in table.notes):
        console.print(note, markup=False)
    return tables


def _catalogue(tables: list[LabelTable], cuts: Cuts, funnel: Funnel) -> tuple[Catalogue, list[Overlap]]:
    try:
        return join_catalogues([apply_cuts(table, cuts, funnel) for table in tables], funnel)
    except SpectangleError:
        _print_funnel(funnel, [])
        raise


def _origin(archive: Source, catalogue: Catalogue) -> str:
    """Where spectra and labels come from, and what to cite."""
    names = " x ".join([archive.origin, *(name for name in catalogue.origins if name != archive.origin)])
    return names + (f"; cite {archive.cite}" if isinstance(archive, Cited) else "")


def _job(archive: Source, pixels: Pixels, wanted: np.ndarray | None, survey: Path, max_bad_rows: int) -> Job:
    """What the readers of the files need to know: the stars that are wanted, None for all of them."""
    grid = archive.fit_pixels(pixels, wanted) if isinstance(archive, FitsPixels) else pixels
    return Job(archive, grid, wanted, survey.with_name(survey.name + ".parts"), max_bad_rows)


def _left_out(archive: Source, catalogue: Catalogue, survey: Path) -> list[str]:
    """A sentence for each file that is not in the survey, where the archive knows them."""
    if not isinstance(archive, ExplainsLeftOut):
        return []
    with Survey(survey) as made:
        return archive.left_out(catalogue.source_id, made.source_id)


def _finish(result: Prepared, parts: Path, report: bool) -> None:
    if report:
        console.print(f"Report: {write_report(result)}")
    for sentence in result.bad.sentences[:20]:
        console.print(f"skipped: {sentence}", markup=False)
    if result.bad.count > 20:
        console.print(f"skipped: {result.bad.count - 20} more rows")
    shown = SHOWN if report else len(result.left_out)
    for sentence in result.left_out[:shown]:
        console.print(f"not in the survey: {sentence}", markup=False)
    if len(result.left_out) > shown:
        console.print(f"not in the survey: {len(result.left_out) - shown} more; the report names them all.")
    if result.tally.empty_pixels:
        console.print(f"{result.tally.empty_pixels} pixels are masked in every star and were left out.")
    with Survey(result.survey) as survey:
        if gaps := label_gaps(survey):
            console.print(f"Labels are missing: {gaps}; cuts.require says which a star must have.", markup=False)
        words = [f"data.path={result.survey}"]
        if set(survey.labels) == {"teff", "logg", "fe_h"}:  # of few stars first_pair leaves a tenth of fe_h
            words.append("lambdas=entangle_teff_logg")
        elif {"teff", "logg"} < set(survey.labels):  # else nothing is kept or lost
            words.append("lambdas=first_pair")
        if result.tally.after_snr < FEW:
            words.append("experiment=small_survey")
    shutil.rmtree(parts, ignore_errors=True)
    console.print(
        f"Survey: {result.survey} ({result.tally.after_snr} stars). Train on it: spectangle train data=survey "
        f"{' '.join(words)}",
        markup=False,
    )


def _print_funnel(funnel: Funnel, overlaps: Sequence[Overlap]) -> None:
    if not funnel.steps:
        return
    more = ("removed", "paper") if funnel.has_paper else ("removed",)
    table = Table(title="The sample (paper: Manteiga et al. 2025, section 3.1)" if funnel.has_paper else "The sample")
    for name in ("of", "step"):
        table.add_column(name, overflow="fold")
    for name in ("stars left", *more):
        table.add_column(name, justify="right")
    previous = None
    for step in funnel.steps:
        part = "" if step["part"] == previous else step["part"]
        previous = step["part"]
        numbers = [f"{step[key]:,}" if step[key] else "" for key in more]
        table.add_row(part, step["step"], f"{step['left']:,}", *numbers)
    console.print(table)
    for overlap in overlaps:
        shown = ", ".join(f"{name} {overlap.mean[name]:+.3g} +- {overlap.sigma[name]:.3g}" for name in overlap.mean)
        console.print(
            f"{overlap.n_stars} stars in both: {overlap.first} - {overlap.second} (mean +- sigma): {shown}",
            markup=False,
        )
