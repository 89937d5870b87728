"""What a source of spectra must have, and may have: archives of one's own in spectangle.archives.prepare."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectangle import archives
from spectangle.archives import BadRows, Cuts, LabelSources, LabelTable, Pixels, Source, SpectraChunk, prepare
from spectangle.archives.source import (
    BringsLabels,
    Cited,
    Downloads,
    ExplainsLeftOut,
    FitsPixels,
    NamesStars,
    ScalesToMedian,
    groups_of,
)
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

IDS = np.arange(11, 19)
OWN_CUTS = Cuts(g_min=None, g_max=None, max_errors={"teff": np.inf}, require=[], max_masked=0.5)
MORE = (BringsLabels, Cited, Downloads, ExplainsLeftOut, FitsPixels, NamesStars, ScalesToMedian)
SOURCES = [archives.GaiaDataLink, archives.GaiaFiles, archives.Gandalf, archives.Miles, archives.Plain]


def chunk(path: Path = Path("a"), **changes: Any) -> SpectraChunk:
    flux = np.linspace(0.5, 1, 8 * 20).reshape(8, 20)
    kept = {
        "row": np.arange(1, 9),
        "source_id": IDS,
        "flux": flux,
        "flux_error": None,
        "wavelength": np.arange(20) + 500,
    }
    return SpectraChunk(path, **(kept | changes))


@dataclass(frozen=True)
class Own:
    """A source of eight stars in one file, the last without a label."""

    path: Path
    spectra: Callable[[Path, BadRows], SpectraChunk] | None = field(default=None, repr=False)
    origin: str = "own"
    release: str = "1"

    def work(self):
        return [[self.path]]

    def read(self, path, bad, wanted=None):
        made = chunk(path) if self.spectra is None else self.spectra(path, bad)
        bad.note(made.source_id)
        yield made

    def labels(self, bad):
        ids = IDS[:7]
        columns = {"name": np.array([f"star {number}" for number in ids])}
        return LabelTable(
            "own", ids, {"teff": 300.0 * ids, "vsini": 1.0 * ids}, {}, np.full(7, np.nan), columns=columns
        )


@dataclass(frozen=True)
class Rich(Own):
    """The same with all that a source may have."""

    folder: str = "x"
    cite = "Somebody 2026"
    scales_to_median = True
    label_keys = {"table": "labels.table", "units": "archive.path=..."}
    star_names = {18: "unlabelled star"}
    calls: list = field(default_factory=list, repr=False)

    def download(self):
        self.calls.append("download")
        return [self.path]

    def fit_pixels(self, pixels, wanted):
        return Pixels("resample", start=502.0, step=2.0, number=5)

    def left_out(self, chosen, made):
        return [f"{len(chosen)} chosen, {len(made)} made"]


def made_of(source: Source, tmp_path: Path, **options: Any):
    keys = {"cuts": OWN_CUTS, "pixels": Pixels("none"), "report": False} | options
    return prepare(source, tmp_path / "my.h5", **keys)


def test_the_least_that_a_source_has(tmp_path):
    made = made_of(Own(tmp_path / "a"), tmp_path)
    assert made is not None and made.left_out == []
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.source_id.tolist() == IDS[:7].tolist() and survey.attributes["origin"] == "own"
        assert (survey.unit("teff"), survey.unit("vsini")) == ("K", "")
        np.testing.assert_allclose(survey.flux(0, 7), chunk().flux[:7])


def test_what_a_source_may_have_is_asked_for(tmp_path):
    source = Rich(tmp_path / "a")
    assert all(isinstance(source, kind) for kind in MORE)
    assert not isinstance(Own(tmp_path), MORE)
    cuts = Cuts(g_min=None, g_max=None, max_errors={"teff": np.inf}, require=[], max_masked=0.5, unlabelled=True)
    made = made_of(source, tmp_path, cuts=cuts)
    assert made is not None and made.left_out == ["8 chosen, 8 made"]
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.attributes["origin"] == "own; cite Somebody 2026"
        np.testing.assert_allclose(survey.wavelength, [502, 504, 506, 508, 510])
        assert survey.column("name")[-1].decode() == "unlabelled star"
        assert survey.column("median_normalised").tolist() == [0] * 8
    assert prepare(source, tmp_path / "other.h5", archives.LabelSources()) is None and source.calls == ["download"]


def test_only_sources_that_scale_to_the_median_are_asked_how_many_they_scaled(tmp_path):
    def scaled(path: Path, bad: BadRows) -> SpectraChunk:
        return chunk(path, flux=np.tile(np.where(np.isin(np.arange(20), [9, 10, 11]), 1.5, 1.0), (8, 1)))

    for source, counted in ((Own(tmp_path / "a", scaled), None), (Rich(tmp_path / "a", scaled), 7)):
        made = made_of(source, tmp_path, pixels=Pixels("none"), overwrite=True, report=True)
        assert made is not None and made.tally.median_normalised == counted
        with Survey(tmp_path / "my.h5") as survey:
            assert ("median_normalised" in survey.columns) == (counted is not None)
        assert ("scaled to a median of 1" in (tmp_path / "my.html").read_text()) == (counted is not None)


def test_options_of_labels_are_for_sources_without_labels(tmp_path):
    def refused(source: Source, **options: Any) -> str:
        with pytest.raises(SpectangleError) as error:
            made_of(source, tmp_path, labels=LabelSources(**options))
        assert not list(tmp_path.iterdir())
        return str(error.value)

    own, rich = Own(tmp_path / "a"), Rich(tmp_path / "a")
    said = "labels.units={teff: kK, logg: dex} came, and the archive Own brings its own labels: it would not be read. "
    assert refused(own, units={"teff": "kK", "logg": "dex"}) == said + "Leave it out."
    assert refused(own, priority=["apogee"]).startswith("labels.priority=[apogee] came")
    assert refused(rich, table="a", units={"teff": "K"}).endswith("would not be read. Write archive.path=... instead.")
    made_of(rich, tmp_path, labels=LabelSources(table="a", apogee_columns={}))


@pytest.mark.parametrize("source", [*SOURCES, archives.Spectra1D, Own])
def test_every_source_has_what_the_protocol_says(source):
    for name in ("work", "read", "labels"):
        own, said = (list(inspect.signature(getattr(one, name)).parameters) for one in (source, Source))
        assert own == said, f"{source.__name__}.{name}"
    assert {"origin", "release"} <= set(dir(source)) | set(inspect.signature(source).parameters)


class Plainly(Own):
    __repr__ = object.__repr__


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (object(), "The archive object has no work and no read and no labels and no origin and no release; a source"),
        (Plainly(Path("a")), r"Plainly shows itself as '<.*>', which tells no settings.*dataclass"),
        (Own(Path("a"), lambda path, bad: chunk(path, flux=np.ones(20))), r"a: flux came .*\(20,\).*\(8, 20\) was exp"),
        (Own(Path("a"), lambda path, bad: chunk(path, flux_error=np.ones((8, 9)))), r"flux_error came .*\(8, 9\)"),
        (Own(Path("a"), lambda path, bad: chunk(path, row=1)), r"a: row came with the shape \(1,\)"),
        (Own(Path("a"), lambda path, bad: chunk(path, source_id=IDS * 1.0)), "a, source_id came as float64"),
        (Own(Path("a"), lambda path, bad: chunk(path, wavelength=-np.arange(20))), "a: the wavelengths do not incr"),
        (Own(Path("a"), lambda path, bad: chunk(Path(path.read_text()))), "a cannot be read .*No such file.*download"),
    ],
)
def test_what_is_no_source_and_what_one_must_not_give(source, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpectangleError, match=sentence):
        made_of(source, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("groups", "sentence"), [([], "finds no file"), ([[]], "finds no file"), ([["a"]], "gave 'a'; lists of lists of")]
)
def test_groups_without_files(groups, sentence, tmp_path):
    source = Own(tmp_path)
    object.__setattr__(source, "work", lambda: groups)
    with pytest.raises(SpectangleError, match=f"The archive Own.*{sentence}"):
        groups_of(source)


def test_masked_pixels_of_a_chunk_are_missing():
    flux = np.ma.masked_greater(chunk().flux, 0.9)
    given = chunk(flux=flux).flux
    assert np.isnan(given[flux.mask]).all() and not np.isnan(given[~flux.mask]).any()
