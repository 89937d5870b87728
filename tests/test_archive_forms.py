"""Files of spectra in the forms that people have: told by their content, read right, or named with the reason."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from archive_files import Stars, bulk_rows, individual_table, raw_table, write_bulk, write_table
from astropy.io import fits
from astropy.table import Table

from spectangle.archives import GaiaFiles, LabelSources, prepare
from spectangle.archives.gaia.gaia_datalink import read_gaia
from spectangle.archives.gaia.gaia_files import COLUMNS
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.table_file import read_table
from spectangle.errors import SpectangleError
from spectangle.survey.wavelengths import linear_grid


@pytest.fixture(scope="module")
def stars():
    return Stars(4, n_pixels=301)


def text(table: Table, form: str = "ascii.csv", **options) -> str:
    out = io.StringIO()
    table.write(out, format=form, **options)
    return out.getvalue()


def quoted_names(csv: str) -> str:
    names, rest = csv.split("\n", 1)
    return ",".join(f'"{name}"' for name in names.split(",")) + "\n" + rest


def row_names(csv: str) -> str:
    lines = quoted_names(csv).strip().split("\n")
    return '"",' + lines[0] + "\n" + "\n".join(f'"{i}",{line}' for i, line in enumerate(lines[1:], 1)) + "\n"


def word(csv: str, missing: str) -> str:
    """The form in which missing cells have a word."""
    return csv.replace(",,", f",{missing},").replace(",\n", f",{missing}\n")


def individual(stars: Stars, i: int = 2) -> Table:
    table = Table(individual_table(stars, i), masked=True)
    for name in ("flux", "flux_error"):
        table[name].mask = ~np.isfinite(np.asarray(table[name]))
    return table


FORMS = {  # {file name: its text, of star 2, a row per pixel}
    "spaces.ecsv": lambda s: text(individual(s), "ascii.ecsv"),
    "tabs.txt": lambda s: text(individual(s), "ascii.tab"),
    "tabs.csv": lambda s: text(individual(s), "ascii.tab"),
    "blanks.txt": lambda s: text(individual(s), "ascii.basic", fill_values=[("", "NA"), ("--", "NA")]).replace(
        '""', "NA"
    ),
    "semicolons.csv": lambda s: text(individual(s)).replace(",", ";"),
    "r.csv": lambda s: word(quoted_names(text(individual(s))), "NA"),
    "r_row_names.csv": lambda s: word(row_names(text(individual(s))), "NA"),
    "null.csv": lambda s: word(text(individual(s)), "null"),
    "NULL.CSV": lambda s: word(text(individual(s)), "NULL"),
    "marked.csv": lambda s: "\ufeff" + text(individual(s)),
    "windows.csv": lambda s: text(individual(s)).replace("\n", "\r\n"),
    "UPPER.ECSV": lambda s: text(individual(s), "ascii.ecsv", delimiter=","),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
def test_a_row_per_pixel_in_any_form_of_text(tmp_path, stars, name, packed):
    content = FORMS[name](stars).encode()
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    [chunk] = read_gaia(path, BadRows(), COLUMNS, linear_grid)
    assert chunk.source_id.tolist() == [stars.ids[2]]
    np.testing.assert_allclose(chunk.flux[0], stars.flux[2], rtol=1e-6)
    np.testing.assert_allclose(chunk.flux_error[0], stars.error[2], rtol=1e-6)
    np.testing.assert_allclose(chunk.wavelength, stars.wavelength, atol=1e-5)


def bulk_text(stars: Stars, separator: str = ",") -> str:
    names = ["source_id", "flux", "flux_error"]
    rows = [row.split(",", 1)[0] + "," + row[row.index('"') :] for row in bulk_rows(stars, names)]
    if separator != ",":
        rows = [row.replace(',"', f'{separator}"') for row in rows]
    return separator.join(names) + "\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("change", ["marked", "quoted names", "tabs", "spaces", "UPPER", "ecsv"])
def test_a_row_per_star_in_any_form_of_text(tmp_path, stars, change):
    content = bulk_text(stars, {"tabs": "\t", "spaces": " "}.get(change, ","))
    content = {"marked": "\ufeff" + content, "quoted names": quoted_names(content)}.get(change, content)
    if change == "ecsv":
        content = text(raw_table(stars), "ascii.ecsv")
    path = tmp_path / ("A.CSV" if change == "UPPER" else "a.csv")
    path.write_text(content)
    chunks = list(read_gaia(path, BadRows(), COLUMNS, linear_grid))
    np.testing.assert_array_equal(np.concatenate([chunk.source_id for chunk in chunks]), stars.ids)
    np.testing.assert_allclose(np.concatenate([chunk.flux for chunk in chunks]), stars.flux, rtol=1e-6)


def test_text_is_no_star_of_one_pixel(tmp_path, stars):
    table = individual_table(stars, 0)
    table["flux"] = ["bad"] + ["1.0"] * (len(table) - 1)
    path = write_table(tmp_path / "a.csv", table)
    with pytest.raises(
        SpectangleError, match="column 'flux' holds text .'bad'.; numbers or lists of numbers were expected"
    ):
        list(read_gaia(path, BadRows(), COLUMNS, linear_grid))
    (tmp_path / "b.csv").write_text("source_id,flux\n12,0.5\n13,0.6\n")
    with pytest.raises(SpectangleError, match="column 'flux' has one value in a row: lists of flux were expected"):
        list(read_gaia(tmp_path / "b.csv", BadRows(), COLUMNS, linear_grid))


@pytest.fixture
def folder(tmp_path, stars):
    """A folder of one bulk file, one zip file of everything, and what lies about in folders."""
    rvs = tmp_path / "rvs"
    rvs.mkdir()
    first, rest = Stars.__new__(Stars), Stars.__new__(Stars)
    for part, rows in ((first, slice(0, 1)), (rest, slice(1, 4))):
        part.ids, part.flux, part.error, part.wavelength = (
            stars.ids[rows],
            stars.flux[rows],
            stars.error[rows],
            stars.wavelength,
        )
    write_bulk(rvs / "A.CSV.GZ", first).write_bytes(gzip.compress((rvs / "A.CSV.GZ").read_bytes()))
    with zipfile.ZipFile(rvs / "DOWNLOAD.ZIP", "w") as archive:
        for i in range(2):
            file = write_table(tmp_path / f"{i}.fits", individual_table(rest, i))
            archive.writestr(f"RVS-Gaia DR3 {rest.ids[i]}.fits.gz", gzip.compress(file.read_bytes()))
        file = write_table(tmp_path / "2.xml", individual_table(rest, 2))
        archive.writestr("RVS.XML", file.read_bytes())
        archive.writestr("__MACOSX/._RVS.XML", b"x")
        archive.writestr("notes.pdf", b"x")
        archive.writestr("EPOCH_PHOTOMETRY_RAW.fits", b"x")
    fits.PrimaryHDU(np.ones((3, 3))).writeto(rvs / "image.fits")
    (rvs / "readme.md").write_text("read me")
    stars.table().write(tmp_path / "labels.ecsv")
    return tmp_path


def made(folder: Path, max_bad_rows: int = 0):
    labels = LabelSources(table=str(folder / "labels.ecsv"))
    return prepare(
        GaiaFiles(str(folder / "rvs")),
        folder / "my.h5",
        labels,
        max_bad_rows=max_bad_rows,
        report=False,
        overwrite=True,
    )


def test_every_file_is_used_or_named(folder):
    result = made(folder)
    assert result is not None and result.tally.after_snr == 4 and result.bad.count == 0
    said = "\n".join(result.left_out)
    for sentence in (
        "image.fits holds no table: as FITS it has images or headers only",
        "readme.md: has the ending of no spectrum",
        "DOWNLOAD.ZIP/notes.pdf: has the ending of no spectrum",
        "DOWNLOAD.ZIP/__MACOSX/._RVS.XML: is hidden by its name",
        "DOWNLOAD.ZIP/EPOCH_PHOTOMETRY_RAW.fits: is another product",
    ):
        assert sentence in said, said


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.fits", b"", "a.fits is empty"),
        ("a.csv", b"source_id,flux,flux_error\n", "a.csv has no row: it is a header only"),
        (
            "a.ecsv",
            b"# %ECSV 1.0\n# ---\n# datatype:\n# - {name: flux, datatype: float64}\nflux\n",
            "a.ecsv has no row",
        ),
        ("a.csv.gz", gzip.compress(b"# only\n", mtime=0), "a.csv.gz holds no table"),
    ],
)
def test_files_without_a_row_are_bad_and_named(folder, name, content, reason):
    (folder / "rvs" / name).write_bytes(content)
    with pytest.raises(SpectangleError, match=reason):
        made(folder)
    result = made(folder, max_bad_rows=1)
    assert result is not None and result.tally.after_snr == 4 and result.bad.count == 1


def test_files_without_spectra_only_are_a_sentence(tmp_path, stars):
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "image.fits")
    stars.table().write(tmp_path / "labels.ecsv")
    with pytest.raises(SpectangleError, match="among the 0 spectra.* Not used: .*image.fits holds no table"):
        prepare(
            GaiaFiles(str(tmp_path / "image.fits")),
            tmp_path / "my.h5",
            LabelSources(table=str(tmp_path / "labels.ecsv")),
            report=False,
        )


@pytest.mark.parametrize("name", ["a.fits", "a.vot", "a.parquet", "a.ecsv", "a.txt", "A.CSV", "anything"])
def test_tables_are_told_by_their_content(tmp_path, stars, name):
    forms = {"a.fits": "fits", "a.vot": "votable", "a.ecsv": "ascii.ecsv", "a.txt": "ascii.tab", "A.CSV": "ascii.csv"}
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(
            pyarrow.table({"source_id": pyarrow.array(stars.ids), "n": [1, None, 2, 3]}), tmp_path / "table.x"
        )
    else:
        stars.table().write(tmp_path / "table.x", format=forms.get(name, "fits"))
    (tmp_path / "table.x").rename(tmp_path / name)
    np.testing.assert_array_equal(read_table(tmp_path / name)["source_id"], stars.ids)


def test_a_cut_off_line_is_no_row_of_missing_values(tmp_path):
    (tmp_path / "a.csv").write_text("source_id,teff\n12,5000\n13")
    with pytest.raises(SpectangleError, match="a.csv cannot be read as text"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        SpectangleError, match="b.xlsx is a zip file, or an Excel workbook; unpack it, or save its sheet as CSV"
    ):
        read_table(tmp_path / "b.xlsx")
