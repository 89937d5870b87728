"""Parts and labels to one survey file, a few thousand stars at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np

from spectangle.archives.convert import OTHER_GRID, open_part, words_in
from spectangle.archives.join import UNLABELLED, Catalogue
from spectangle.archives.sample import PAPER, Cuts, Funnel
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import positions_in
from spectangle.survey.writer import SurveyWriter

__all__ = ["Tally", "assemble", "ids_in"]

CHUNK = 4096


@dataclass
class Tally:
    """What was counted on the way.

    Attributes:
        rows: Spectra in the files.
        found: Labelled stars with a spectrum.
        after_masked, after_snr: Stars left after the two cuts on spectra.
        by_origin: Stars in the survey by catalogue [number of origins].
        median_normalised: Stars in the survey that seem scaled to their median; None: of such a source nobody asks.
        empty_pixels: Pixels that no star has; they are left out of the survey.
    """

    rows: int = 0
    found: int = 0
    after_masked: int = 0
    after_snr: int = 0
    by_origin: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    median_normalised: int | None = None
    empty_pixels: int = 0


def assemble(
    parts: Sequence[Path],
    catalogue: Catalogue,
    cuts: Cuts,
    funnel: Funnel,
    bad: BadRows,
    survey: Path,
    origin: str,
    release: str,
) -> Tally:
    """Write the survey from the parts; nothing but a finished file gets the survey's name.

    Raises:
        SpectangleError: No labelled star has a spectrum, none passes the cuts, or there are too many duplicates.
    """
    wavelength, covered, with_error = _common(parts)
    tally = Tally(by_origin=np.zeros(len(catalogue.origins), dtype=int))
    seen = np.zeros(len(catalogue.source_id), dtype=bool)
    _count_rows(parts, tally, bad)
    if wavelength is None:
        raise _empty_join(parts, catalogue, tally, bad)
    tally.empty_pixels = int(np.sum(~covered))
    with SurveyWriter(survey, wavelength[covered] * u.nm, catalogue.units, origin, release) as writer:
        for part in parts:
            with open_part(part) as file:
                for start in range(0, len(file["source_id"]) if "source_id" in file else 0, CHUNK):
                    _append(
                        file,
                        slice(start, start + CHUNK),
                        catalogue,
                        cuts,
                        seen,
                        tally,
                        bad,
                        writer,
                        with_error,
                        covered,
                    )
        if not tally.found:
            raise _empty_join(parts, catalogue, tally, bad)
        _close_funnel(funnel, catalogue, cuts, tally)
        if not writer.n_stars:
            raise SpectangleError(
                "No star is left after the cuts on the spectra; loosen the one that removed them: cuts.max_masked "
                "or cuts.min_snr."
            )
    return tally


def ids_in(parts: Sequence[Path]) -> np.ndarray:
    """Ids [n] of all spectra of the parts."""
    found = [np.zeros(0, dtype=np.int64)]
    for part in parts:
        with open_part(part) as file:
            found += [file["source_id"][:]] if "source_id" in file else []
    return np.concatenate(found)


def _common(parts: Sequence[Path]) -> tuple[np.ndarray | None, np.ndarray, bool]:
    """The grid [Q] of all parts (None when no part has a star), which pixels any star has [Q], whether all have
    errors.
    """
    wavelength, covered, with_error = None, np.zeros(1, dtype=bool), True
    for part in parts:
        with open_part(part) as file:
            if "source_id" not in file:
                continue
            grid = file["wavelength"][:]
            if wavelength is not None and not np.array_equal(grid, wavelength):
                raise SpectangleError(f"{words_in(file, 'paths')[0]} {OTHER_GRID}")
            wavelength, covered, with_error = grid, covered | file["covered"][:], with_error and "flux_error" in file
    return wavelength, covered, with_error


def _count_rows(parts: Sequence[Path], tally: Tally, bad: BadRows) -> None:
    for part in parts:
        with open_part(part) as file:
            tally.rows += int(file.attrs["rows"])
            bad.unused += words_in(file, "unused")
            if file.attrs["bad_rows"]:
                bad.add(int(file.attrs["bad_rows"]), words_in(file, "sentences"))


def _append(
    file,
    rows: slice,
    catalogue: Catalogue,
    cuts: Cuts,
    seen,
    tally: Tally,
    bad: BadRows,
    writer: SurveyWriter,
    with_error: bool,
    covered: np.ndarray,
) -> None:
    ids = file["source_id"][rows]
    position = positions_in(ids, catalogue.source_id)
    keep = _first_time(file, rows, ids, position, seen, bad)
    tally.found += int(keep.sum())
    keep &= file["masked_fraction"][rows] <= cuts.max_masked
    tally.after_masked += int(keep.sum())
    snr = file["rvs_snr"][rows]
    if cuts.min_snr is not None:
        keep &= np.nan_to_num(snr, nan=-1) >= cuts.min_snr
    tally.after_snr += int(keep.sum())
    if not keep.any():
        return
    star = position[keep]
    measured = [name for name in ("masked_fraction", "median_normalised", "rvs_snr") if name in file]
    columns = {name: file[name][rows][keep] for name in measured}
    columns |= {
        "phot_g_mean_mag": catalogue.g_mag[star],
        "label_origin": np.array([name.replace(UNLABELLED, "") for name in catalogue.origins])[catalogue.origin[star]],
    }
    columns |= {name: values[star] for name, values in catalogue.columns.items()}
    if "median_normalised" in columns:
        tally.median_normalised = (tally.median_normalised or 0) + int(columns["median_normalised"].sum())
    tally.by_origin += np.bincount(catalogue.origin[star], minlength=len(tally.by_origin))
    writer.append(
        source_id=ids[keep],
        flux=file["flux"][rows][keep][:, covered],
        labels={name: values[star] for name, values in catalogue.labels.items()},
        flux_error=file["flux_error"][rows][keep][:, covered] if with_error else None,
        label_errors={name: values[star] for name, values in catalogue.errors.items()},
        columns=columns,
    )


def _first_time(file, rows: slice, ids, position, seen, bad: BadRows) -> np.ndarray:
    """Mask [n] of stars of the catalogue not met before; a second spectrum of a star is a bad row."""
    keep = position >= 0
    for i in np.flatnonzero(keep):
        where = position[i]
        if seen[where]:
            path = words_in(file, "paths")[file["file"][rows][i]]
            bad.skip(
                path,
                int(file["row"][rows][i]),
                f"source_id {ids[i]} comes a second time; one spectrum per star was expected",
            )
            keep[i] = False
        seen[where] = True
    return keep


def _close_funnel(funnel: Funnel, catalogue: Catalogue, cuts: Cuts, tally: Tally) -> None:
    funnel.add("sample", "has a spectrum", tally.found)
    funnel.add("sample", f"masked pixels <= {cuts.max_masked:.0%}", tally.after_masked)
    if cuts.min_snr is not None:
        funnel.add("sample", f"S/N >= {cuts.min_snr:g}", tally.after_snr)
    for name, number in zip(catalogue.origins, tally.by_origin, strict=True):
        funnel.add(f"survey: {name}", "stars", number, PAPER.get(name))
    funnel.add(
        "survey: total", "stars", tally.after_snr, PAPER["total"] if PAPER.keys() & set(catalogue.origins) else None
    )


def _empty_join(parts: Sequence[Path], catalogue: Catalogue, tally: Tally, bad: BadRows) -> SpectangleError:
    with open_part(parts[-1]) as file:
        path, example = words_in(file, "paths")[-1], int(file.attrs["example_id"])
    unused = f" Not used: {bad.unused[0].rstrip('.')}{' ...' if len(bad.unused) > 1 else ''}." if bad.unused else ""
    return SpectangleError(
        f"None of the {len(catalogue.source_id)} labelled stars is among the {tally.rows} spectra: the labels "
        "have ids such as "
        f"{catalogue.source_id[0]}, the spectra such as {example} ({path}). "
        f"Labels need Gaia DR3 (= EDR3) source_ids, and the files must cover the same stars.{unused}"
    )
