"""The table of predicted stars: columns with units, descriptions and UCDs, written as ECSV, FITS, VOTable or Parquet.

Shapes: n stars, K labels, Z latent.
"""

import datetime
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Column, Table

from spectangle.errors import SpectangleError
from spectangle.files import check_folder, refuse_existing, remove_leftovers, whole_file
from spectangle.inference.quality import Limits, Quality, quality
from spectangle.inference.reading import Reading
from spectangle.version import VERSION

if TYPE_CHECKING:
    from spectangle.inference.calibration import Calibration
    from spectangle.inference.trained_networks import TrainedNetworks

__all__ = ["check_output", "star_table", "write_table"]

UCDS = {
    "teff": "phys.temperature.effective",
    "logg": "phys.gravity",
    "m_h": "phys.abund.Z",
    "fe_h": "phys.abund.Fe",
    "alpha_fe": "phys.abund",
}
WHAT = {
    "teff": "effective temperature",
    "logg": "surface gravity, log10 of cm/s2",
    "m_h": "[M/H]",
    "fe_h": "[Fe/H]",
    "alpha_fe": "[alpha/Fe]",
}
DISENTANGLED = (
    "; disentangled: the run lost this label from the latent, so this is what was left of it and no measurement"
)
log = logging.getLogger(__name__)

RECORD_ROWS = 20_000  # rows of text that are formatted at a time


def star_table(
    model: "TrainedNetworks",
    reading: Reading,
    source_id: np.ndarray,
    has_error: bool | np.ndarray,
    coverage: float,
    limits: Limits,
    calibration: "Calibration | None" = None,
    ensemble: int = 1,
    latents: bool = False,
) -> Table:
    """Make the table of n stars from what was read of them.

    Arguments:
        model: Says which labels there are; the first one of an ensemble.
        reading: What was read.
        source_id: Identifiers [n] int64.
        has_error: Whether the spectra came with errors: all or none, or each star [n].
        coverage: Of the intervals.
        limits: Of the quality flags.
        calibration: Of the ensemble; default: the model's.
        ensemble: Number of models.
        latents: Whether z is written as well.
    """
    calibration = calibration or model.calibration
    columns = [
        _column("source_id", np.asarray(source_id, np.int64), None, "identifier of the star", "meta.id;meta.main")
    ]
    columns += _label_columns(model, reading, calibration, coverage, ensemble)
    columns += _quality_columns(model, reading, calibration, has_error, limits)
    if latents:
        columns += [_column(f"z{i:02d}", z, None, f"latent {i}") for i, z in enumerate(reading.latent.T)]
    return Table(columns, meta=_metadata(model, calibration, coverage), copy=False)


def _label_columns(
    model: "TrainedNetworks", reading: Reading, calibration: "Calibration | None", coverage: float, ensemble: int
) -> list[Column]:
    widths = None if calibration is None else calibration.uncertainty(reading, coverage)
    if calibration is not None:
        _warn_of_few_stars(model, calibration, coverage)
    columns = []
    for i, name in enumerate(model.labels):
        unit, ucd = model.units[name], UCDS.get(name, "")
        mean = ", mean of the models" if ensemble > 1 else ""
        words = f"{WHAT.get(name, name)}{mean}{DISENTANGLED if name in model.disentangled else ''}"
        columns.append(_column(name, reading.labels[:, i], unit, words, ucd))
        if widths is not None:
            text = f"half-width of the interval that holds the catalogue's {name} with probability {coverage:g}"
            columns.append(
                _column(f"{name}_uncertainty", widths[:, i], unit, text, f"stat.error;{ucd}" if ucd else "stat.error")
            )
        if ensemble > 1:
            columns.append(
                _column(
                    f"{name}_spread",
                    reading.spread[:, i],
                    unit,
                    f"standard deviation over {ensemble} models",
                    "stat.stdev",
                )
            )
    return columns


def _warn_of_few_stars(model: "TrainedNetworks", calibration: "Calibration", coverage: float) -> None:
    """Name the labels whose intervals are infinite."""
    few = np.isinf(calibration.quantile(coverage))
    if few.any():
        words = ", ".join(f"{model.labels[i]} ({calibration.stars[0, i]})" for i in np.flatnonzero(few))
        log.warning(
            "%s: too few validation stars have the label (number in brackets) for coverage=%g, so that its intervals "
            "are infinite; choose a smaller one.",
            words,
            coverage,
        )


def _quality_columns(
    model: "TrainedNetworks",
    reading: Reading,
    calibration: "Calibration | None",
    has_error: bool | np.ndarray,
    limits: Limits,
) -> list[Column]:
    residual = "the pixel's residual over validation stars"
    per = "its flux error" if np.all(has_error) else f"{residual} (no flux errors came)"
    if np.any(has_error) and not np.all(has_error):
        per = f"its flux error or, of stars that came without (snr is NaN), {residual}"
    columns = [
        _column("snr", reading.snr, None, "mean of flux / flux error over the usable pixels", "stat.snr"),
        _column("masked_fraction", reading.masked, None, "fraction of pixels that were masked"),
        _column(
            "chi2", reading.chi2, None, f"mean over the pixels of ((flux - reconstruction) / {per})^2", "stat.fit.chi2"
        ),
    ]
    if calibration is not None:
        ood, misfit = calibration.quality_scores(reading, has_error)
        normal = "99 % of normal stars of the same S/N lie below 1"
        columns += [
            _column("ood_score", ood, None, f"distance in latent space from the training stars; {normal}"),
            _column("misfit_score", misfit, None, f"misfit of the reconstruction, patterns and all; {normal}"),
        ]
        flags = quality(limits, reading.snr, reading.masked, reading.labels, calibration.label_range, ood, misfit)
        columns.append(_column("flags", flags, None, f"quality, 0 = good; bits: {Quality.legend()}", "meta.code.qual"))
    return columns


def _column(name: str, values: np.ndarray, unit: str | None, description: str, ucd: str = "") -> Any:
    return Column(values, name=name, unit=unit or None, description=description, meta={"ucd": ucd} if ucd else {})


def _metadata(model: "TrainedNetworks", calibration: "Calibration | None", coverage: float) -> dict[str, str]:
    """What the table must say about itself; keys are short enough for FITS."""
    identity = model.identity
    meta = {
        "run": identity["run"],
        "ckpt": identity["checkpoint"],
        "commit": identity["commit"],
        "survey": identity["survey"],
        "seed": identity["seed"],
        "trained": model.trained_on,
        "lost": " ".join(model.disentangled) or "none",
        "creator": f"spectangle {VERSION}",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if calibration is not None:
        meta["coverage"] = f"{coverage:g}"
        measured = zip(model.labels, calibration.measured_coverage(coverage), strict=True)
        meta["tested"] = " ".join(f"{name}={'-' if np.isnan(value) else f'{value:.3f}'}" for name, value in measured)
    meta["flagbits"] = Quality.legend()
    return meta


def check_output(path: str | Path | None, overwrite: bool) -> Path:
    """Check that a table can be written, before hours of work.

    Raises:
        SpectangleError: The ending is unknown, the file exists, or the folder cannot be written.
    """
    if path is None:
        raise SpectangleError("out is empty; give a file to write: out=stars.ecsv (or .fits, .vot, .parquet).")
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise SpectangleError(f"out={path} ends in '{path.suffix}'; a table can be written as {', '.join(WRITERS)}.")
    refuse_existing(path, overwrite)
    check_folder(path)
    return path


def write_table(table: Table, path: Path) -> None:
    """Write a table beside its name, then rename: what has the name is whole. Parts of it that killed processes left
    are removed.

    Raises:
        SpectangleError: The disk is full or the folder is gone.
    """
    remove_leftovers(path)
    try:
        with whole_file(path) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units of astropy that a format spells differently
            WRITERS[path.suffix.lower()](table, part)
    except OSError as error:
        raise SpectangleError(
            f"{path} could not be written ({error}); free some space or choose another folder."
        ) from error


def _write_ecsv(table: Any, part: Path) -> None:
    """Write astropy's ECSV in pieces: a million rows of text at once would not fit a laptop."""
    with part.open("w") as file:
        for start in range(0, max(len(table), 1), RECORD_ROWS):
            text = io.StringIO()
            table[start : start + RECORD_ROWS].write(text, format="ascii.ecsv")
            lines = text.getvalue()
            if start:  # the header is there already: comment lines, then the names
                lines = lines[lines.index("\nsource_id ") + 1 :].partition("\n")[2]
            file.write(lines)


def _write_fits(table: Any, part: Path) -> None:
    """FITS; astropy leaves out dex, which is no unit of the FITS standard, and keeps descriptions where only astropy
    looks.
    """
    from astropy.io import fits

    table = table.copy(copy_data=False)
    table.meta = {key.upper(): value for key, value in table.meta.items()}
    table.write(part, format="fits", overwrite=True)
    with fits.open(part, mode="update") as file:
        header: Any = file[1].header  # pyright: ignore[reportAttributeAccessIssue]
        for number, column in enumerate(table.itercols(), 1):
            words = {"TUNIT": column.unit, "TCOMM": column.description, "TUCD": column.meta.get("ucd")}
            header.update({f"{key}{number}": str(value) for key, value in words.items() if value})


def _write_votable(table: Any, part: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    document = from_table(table)
    document.resources[0].infos.extend(Info(name=key, value=value) for key, value in table.meta.items())
    document.to_xml(str(part), tabledata_format="binary2")


def _write_parquet(table: Any, part: Path) -> None:
    """VOParquet: units, descriptions and UCDs as a VOTable inside, which TOPCAT and astropy read."""
    table = table.copy(copy_data=False)
    table.meta["description"] = "; ".join(f"{key}: {value}" for key, value in table.meta.items())
    metadata = {
        column.name: {"unit": None if column.unit is None else str(column.unit), "ucd": column.meta.get("ucd")}
        for column in table.itercols()
    }
    table.write(part, format="parquet.votable", metadata=metadata, overwrite=True)


WRITERS: Mapping[str, Callable[[Any, Path], None]] = {
    ".ecsv": _write_ecsv,
    ".fits": _write_fits,
    ".vot": _write_votable,
    ".parquet": _write_parquet,
}
