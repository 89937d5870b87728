"""Tables that are read some rows at a time: the same stars, masks, grids and bad rows as at once, in little memory."""

import gzip
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from archive_files import Stars, list_text, raw_table
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from spectangle.archives.gaia import gaia_datalink
from spectangle.archives.gaia.gaia_datalink import read_gaia
from spectangle.archives.gaia.gaia_files import COLUMNS
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.table_file import stored_tables
from spectangle.errors import SpectangleError
from spectangle.survey.wavelengths import linear_grid

N, P = 23, 31
BROKEN = (4, 17)  # rows, from 0, that hold no spectrum in the forms that allow it


@pytest.fixture(scope="module")
def stars():
    return Stars(N, n_pixels=P)


def arrays(stars: Stars) -> Table:
    table = raw_table(stars, with_wavelength=True)
    table["wavelength"][::3] += 0.005  # every third star has a grid of its own
    table["words"] = ["a", "", "longer"] + ["b"] * (N - 3)
    return table


def fits_arrays(path: Path, stars: Stars) -> None:
    hdus = [fits.PrimaryHDU(np.ones((2, 2))), fits.table_to_hdu(arrays(stars)), fits.table_to_hdu(arrays(stars)[:5])]
    hdus[0].header["WHO"] = "Gaia"
    fits.HDUList(hdus).writeto(path)


def fits_scaled(path: Path, stars: Stars) -> None:
    flux = ((np.nan_to_num(stars.flux, nan=9.0) - 1) * 1e6).astype(np.int32)
    columns = [
        fits.Column("source_id", "K", array=stars.ids),
        fits.Column("flux", f"{P}J", array=flux),
        fits.Column("flux_error", f"{P}E", array=stars.error),
        fits.Column("good", "L", array=np.arange(N) % 2 == 0),
        fits.Column("flag", "9X", array=np.ones((N, 9), bool)),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.writeto(path)
    before, end, after = path.read_bytes().partition(b"TFORM2  ")  # astropy would scale the numbers before it writes
    scale = (f"{key:8}= {value:>20}".ljust(80).encode() for key, value in (("TSCAL2", "1E-6"), ("TZERO2", "1.0")))
    header, _, data = after.partition(b"END" + b" " * 237)
    path.write_bytes(before + end + header + b"".join(scale) + b"END" + b" " * 77 + data)


def fits_of_varying_length(path: Path, stars: Stars, pointer: str = "P") -> None:
    """Arrays in the heap, of which two are too short, and one is empty."""
    flux = np.empty(N, dtype=object)
    flux[:] = list(stars.flux)
    flux[BROKEN[0]], flux[BROKEN[1]] = stars.flux[0][:3], stars.flux[0][:0]
    columns = [
        fits.Column("source_id", "K", array=stars.ids),
        fits.Column("flux", f"{pointer}E()", array=flux),
        fits.Column("flux_error", f"{pointer}D()", array=np.array(list(stars.error), dtype=object)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)


def fits_of_long_pointers(path: Path, stars: Stars) -> None:
    fits_of_varying_length(path, stars, "Q")


def fits_text(path: Path, stars: Stars) -> None:
    lists = [list_text(row) for row in stars.flux]
    lists[BROKEN[0]], lists[BROKEN[1]] = "[1,2]", ""
    ids = [str(one) for one in stars.ids]
    table = Table({"source_id": ids, "flux": lists, "flux_error": [list_text(row) for row in stars.error]})
    table.write(path, format="fits")


def parquet_lists(path: Path, stars: Stars) -> None:
    lists = [[None if not np.isfinite(v) else float(v) for v in row] for row in stars.flux]
    lists[BROKEN[0]], lists[BROKEN[1]] = [1.0], None
    ids = [None if i == 9 else int(one) for i, one in enumerate(stars.ids)]
    columns = {
        "source_id": pa.array(ids, pa.int64()),
        "flux": pa.array(lists, pa.list_(pa.float32())),
        "flux_error": pa.array(stars.error.tolist(), pa.list_(pa.float64(), P)),
        "wavelength": pa.array(np.asarray(arrays(stars)["wavelength"]).tolist()),
    }
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=9)


def parquet_text(path: Path, stars: Stars) -> None:
    columns = {
        "SOURCE_ID": pa.array([str(one) for one in stars.ids]).dictionary_encode(),
        "flux": [list_text(row) for row in stars.flux],
        "flux_error": [list_text(row) for row in stars.error],
    }
    pyarrow.parquet.write_table(pa.table(columns), path)


def votable(path: Path, stars: Stars) -> None:
    raw_table(stars).write(path, format="votable")


def zipped(path: Path, stars: Stars) -> None:
    parquet_lists(path.with_suffix(".1"), stars)
    fits_arrays(path.with_suffix(".2"), stars)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".1"), "a.parquet")
        archive.writestr("b.fits.gz", gzip.compress(path.with_suffix(".2").read_bytes()))


FORMS = (
    *(fits_arrays, fits_scaled, fits_of_varying_length, fits_of_long_pointers, fits_text),
    *(parquet_lists, parquet_text, votable, zipped),
)


def read(path: Path, wanted=None) -> tuple[dict, BadRows]:
    """{(source_id, row): what was read of it}, and the bad rows."""
    bad, found = BadRows(9), {}
    for chunk in read_gaia(path, bad, COLUMNS, linear_grid, wanted):
        for i, (row, one) in enumerate(zip(chunk.row, chunk.source_id, strict=True)):
            error = None if chunk.flux_error is None else chunk.flux_error[i]
            found[len(found), int(one)] = int(row), chunk.flux[i], error, chunk.wavelength
    return found, bad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at_once", [1, 7, N])
def test_rows_at_a_time_are_those_of_the_whole(form, at_once: int, stars, tmp_path: Path, monkeypatch):
    form(tmp_path / "a", stars)
    whole, bad = read(tmp_path / "a")
    assert len(whole) >= N - 3 and {one for _, one in whole} <= {int(one) for one in stars.ids}
    if form in (fits_arrays, fits_scaled):
        expected = {int(one): flux for one, flux in zip(stars.ids, stars.flux, strict=True)}
        for (_, one), (_, flux, *_) in whole.items():
            np.testing.assert_allclose(flux[:-7], expected[one][:-7], atol=2e-6)
    monkeypatch.setattr(gaia_datalink, "STARS", at_once)
    parts, also_bad = read(tmp_path / "a")
    assert (also_bad.count, sorted(also_bad.sentences), also_bad.read) == (bad.count, sorted(bad.sentences), bad.read)
    whole, parts = ({(one, row): rest for (_, one), (row, *rest) in found.items()} for found in (whole, parts))
    assert whole.keys() == parts.keys()
    for key, values in whole.items():
        for value, other in zip(values, parts[key], strict=True):
            np.testing.assert_array_equal(other, value)
            assert getattr(other, "dtype", None) == getattr(value, "dtype", None)


def test_only_wanted_stars_of_later_rows(stars, tmp_path: Path, monkeypatch):
    fits_of_varying_length(tmp_path / "a", stars)
    monkeypatch.setattr(gaia_datalink, "STARS", 5)
    found, _ = read(tmp_path / "a", wanted=np.sort(stars.ids[[3, 21]]))
    assert [row for row, *_ in found.values()] == [4, 22]


def test_every_column_of_a_block_is_astropys(stars, tmp_path: Path):
    for form in (fits_arrays, fits_scaled, fits_of_varying_length):
        path = tmp_path / form.__name__
        form(path, stars)
        with open(path, "rb") as file:
            table = stored_tables(file, "a")[0]
            expected = table.whole()
            for first, block in table.blocks(6):
                rows = expected[first - 1 : first - 1 + len(block)]
                assert block.colnames == rows.colnames and block.meta.items() >= expected.meta.items()
                for name in block.colnames:
                    assert (block[name].unit, block[name].dtype.kind) == (rows[name].unit, rows[name].dtype.kind)
                    assert np.all(np.ma.getmaskarray(block[name]) == np.ma.getmaskarray(rows[name]))
                    for value, other in zip(block[name].tolist(), rows[name].tolist(), strict=True):
                        np.testing.assert_array_equal(value, other)


def test_sentences_name_the_row_of_the_file(stars, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gaia_datalink, "STARS", 5)
    ids = [str(one) for one in stars.ids]
    ids[12] = "HD 1"
    Table({"source_id": ids, "flux": stars.flux}).write(tmp_path / "a.fits")
    with pytest.raises(SpectangleError, match="a.fits, column source_id, row 13: source_id came as 'HD 1'"):
        read(tmp_path / "a.fits")


def test_a_file_that_ends_early_is_refused_before_its_first_star(stars, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gaia_datalink, "STARS", 1)
    parquet_lists(tmp_path / "a.parquet", stars)
    Table({"source_id": stars.ids, "flux": np.tile(stars.flux, 9)}).write(tmp_path / "a.fits")
    for path in (tmp_path / "a.fits", tmp_path / "a.parquet"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(SpectangleError, match=rf"{path.name} cannot be read as .*download"):
            next(read_gaia(path, BadRows(), COLUMNS, linear_grid))


def test_pointers_beyond_the_file_are_a_sentence(stars, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gaia_datalink, "STARS", 5)
    fits_of_varying_length(tmp_path / "a", stars)
    with fits.open(tmp_path / "a") as hdus:
        at, width = hdus[1].fileinfo()["datLoc"], hdus[1].header["NAXIS1"]
    content = bytearray((tmp_path / "a").read_bytes())
    content[at + 11 * width + 12 : at + 11 * width + 16] = (2**30).to_bytes(4, "big")  # where row 12's flux lies
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(SpectangleError, match="ends before its rows do: it is truncated or damaged"):
        read(tmp_path / "a")


def test_pixels_in_rows_are_read_together(stars, tmp_path: Path, monkeypatch):
    """Stars of a file with a row per pixel need not be of one block."""
    monkeypatch.setattr(gaia_datalink, "STARS", 5)
    table = Table({"source_id": np.repeat(stars.ids[:3], P), "wavelength": np.tile(stars.wavelength, 3)})
    table["flux"] = MaskedColumn(stars.flux[:3].ravel(), mask=np.arange(3 * P) % 10 == 0)
    pyarrow.parquet.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), tmp_path / "a")
    table.write(tmp_path / "b.fits")
    for name in ("a", "b.fits"):
        found, _ = read(tmp_path / name)
        assert [one for _, one in found] == sorted(int(one) for one in stars.ids[:3])


@pytest.mark.parametrize("form", ["fits", "parquet"])
def test_a_file_larger_than_memory_may_be(form: str, tmp_path: Path, monkeypatch):
    """The file, its table and their copies were held: 4 GB for 60,000 stars."""
    monkeypatch.setattr(gaia_datalink, "STARS", 128, raising=False)
    n, width, path = 4000, 1000, tmp_path / f"a.{form}"
    flux = np.random.default_rng(0).normal(1, 0.01, (n, width)).astype(np.float32)
    if form == "fits":
        Table({"source_id": np.arange(1, n + 1), "flux": flux}).write(path)
    else:
        lists = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * width, flux.ravel())
        pyarrow.parquet.write_table(pa.table({"source_id": np.arange(1, n + 1), "flux": lists}), path)
    read_stars, before = 0, pa.total_allocated_bytes()
    tracemalloc.start()
    for chunk in read_gaia(path, BadRows(), COLUMNS, linear_grid):
        np.testing.assert_array_equal(chunk.flux, flux[chunk.source_id - 1])
        read_stars += len(chunk)
        assert pa.total_allocated_bytes() - before < path.stat().st_size / 3  # what Arrow holds
    peak = tracemalloc.get_traced_memory()[1]  # what numpy and Python do
    tracemalloc.stop()
    assert read_stars == n and 3 * peak < path.stat().st_size
