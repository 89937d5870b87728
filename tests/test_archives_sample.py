"""The sample: every cut removes what it says, catalogues join as configured, and a stop loses nothing."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from archive_files import Stars, individual_table, write_apogee, write_bulk, write_galah, write_table
from astropy.table import Table

from spectangle.archives import Cuts, GaiaFiles, LabelSources, Pixels, prepare
from spectangle.archives.convert import median_normalised, signal_to_noise
from spectangle.archives.sample_report import _example_spectra
from spectangle.errors import SpectangleError
from spectangle.figures import label_figure
from spectangle.survey.file import Survey

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def funnel(result) -> dict:
    """{(part, step): (left, removed)}."""
    return {(s["part"], s["step"]): (s["left"], s["removed"]) for s in result.funnel.steps}


def subset(stars: Stars, which) -> Stars:
    part = Stars.__new__(Stars)
    part.ids, part.g, part.flux, part.error, part.wavelength = (
        stars.ids[which],
        stars.g[which],
        stars.flux[which],
        stars.error[which],
        stars.wavelength,
    )
    part.labels = {name: values[which] for name, values in stars.labels.items()}
    return part


@pytest.fixture
def world(tmp_path):
    """40 stars with spectra in two files; 0-29 in APOGEE with every flaw once, 20-39 in GALAH."""
    stars = Stars(40, n_pixels=301, seed=5)
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "RvsMeanSpectrum_0.csv.gz", subset(stars, slice(0, 17)))
    write_bulk(tmp_path / "rvs" / "RvsMeanSpectrum_1.csv.gz", subset(stars, slice(17, 40)))
    apogee, n = subset(stars, np.r_[0:30, 4, 29]), 32
    changed = {name: np.zeros(n, dtype=int) for name in ("ASPCAPFLAG", "FE_H_FLAG", "EXTRATARG")}
    changed["EXTRATARG"][30] = 1 << 4
    changed["ASPCAPFLAG"][[5, 6]] = [1 << 23, 1 << 7]  # STAR_BAD, STAR_WARN (which is kept)
    changed["FE_H_FLAG"][7] = 2
    apogee.ids = np.where(np.arange(n) == 8, 0, apogee.ids)
    apogee.g = apogee.g.copy()
    apogee.g[9:12] = [7.99, 14.01, np.nan]
    errors = {"TEFF_ERR": np.full(n, 90.0), "M_H_ERR": np.full(n, 0.05)}
    errors["TEFF_ERR"][12] = 201
    errors["M_H_ERR"][13] = np.nan
    snr = np.full(n, 100.0)
    snr[31] = 300  # a second row of star 29, the better one
    teff = apogee.labels["teff"].astype(np.float32)
    teff[31] = 5555
    write_apogee(tmp_path / "apogee.fits", apogee, **changed, **errors, SNR=snr, TEFF=teff)
    galah = subset(stars, slice(20, 40))
    galah.labels["teff"] = galah.labels["teff"] + 100
    flags = np.zeros(20, dtype=int)
    flags[[18, 19]] = [1, 64]
    write_galah(tmp_path / "galah.fits", galah, tmp_path / "gaia.fits", flag_sp=flags)
    return tmp_path, stars


def sources(folder, **more) -> LabelSources:
    return LabelSources(
        **(
            {
                name: str(folder / f"{file}.fits")
                for name, file in (("apogee", "apogee"), ("galah", "galah"), ("galah_gaia", "gaia"))
            }
            | more
        )
    )


def run(folder, labels=None, **options):
    options = {"report": False} | options
    return prepare(GaiaFiles(str(folder / "rvs")), folder / "my.h5", labels or sources(folder), **options)


def test_funnel(world):
    steps = funnel(run(world[0]))
    expected = {
        "has a source_id": 1,
        "not EXTRATARG duplicate": 1,
        "not STAR_BAD": 1,
        "not FE_H_FLAG": 1,
        "every label measured": 0,
    }
    expected |= {
        "8 <= G <= 14": 3,
        "teff error <= 200": 1,
        "m_h error <= 0.3; cut: larger, or unknown (1)": 1,
        "one row per star": 1,
    }
    for step, removed in expected.items():
        assert steps["APOGEE DR17", step][1] == removed, step
    assert steps["GALAH DR3", "not flag_sp"] == (18, 2)
    assert steps["GALAH DR3", "not in a catalogue named before"] == (8, 10)
    assert steps["survey: APOGEE DR17", "stars"][0] == 22
    assert steps["survey: total", "stars"][0] == 30


def test_paper_numbers_stand_beside_ours(world, capsys):
    run(world[0])
    printed = capsys.readouterr().out
    assert all(number in printed for number in ("54,422", "9,883", "64,305"))
    assert re.search(r"10 stars in both: APOGEE DR17 - GALAH DR3 .*teff -\d", printed)


def test_apogee_wins_and_the_origin_is_kept(world):
    folder, stars = world
    overlap = run(folder).overlaps[0]
    assert overlap.n_stars == 10
    with Survey(folder / "my.h5", verify=True) as survey:
        origin = dict(zip(survey.source_id, survey.column("label_origin").astype(str), strict=True))
        teff = dict(zip(survey.source_id, survey.label("teff"), strict=True))
        assert survey.unit("teff") == "K" and survey.attributes["origin"] == "Gaia DR3 RVS x APOGEE DR17 x GALAH DR3"
    assert origin[stars.ids[25]] == "APOGEE DR17" and teff[stars.ids[25]] == np.float32(stars.labels["teff"][25])
    assert origin[stars.ids[35]] == "GALAH DR3" and teff[stars.ids[35]] == np.float32(stars.labels["teff"][35] + 100)
    assert teff[stars.ids[29]] == 5555  # the row of higher S/N


def test_galah_may_win(world):
    folder, stars = world
    run(folder, sources(folder, priority=["galah", "apogee"]))
    with Survey(folder / "my.h5") as survey:
        origin = dict(zip(survey.source_id, survey.column("label_origin").astype(str), strict=True))
    assert origin[stars.ids[25]] == "GALAH DR3"
    with pytest.raises(SpectangleError, match=r"labels\.priority"):
        run(folder, sources(folder, priority=["apogee"]), overwrite=True)


def test_cuts_are_config(world):
    steps = funnel(run(world[0], cuts=Cuts(g_min=None, g_max=None, max_errors={}, quality_flags=False)))
    assert ("APOGEE DR17", "not STAR_BAD") not in steps
    assert steps["survey: total", "stars"][0] == 39
    with pytest.raises(SpectangleError, match="g_min"):
        Cuts(g_min=15)


def test_masked_fraction_and_snr_are_cuts(world):
    folder, stars = world
    stars.flux[25, :100] = np.nan
    stars.error[26] = 0.5
    write_bulk(folder / "rvs" / "RvsMeanSpectrum_1.csv.gz", subset(stars, slice(17, 40)))
    steps = funnel(run(folder, cuts=Cuts(min_snr=10)))
    assert steps["sample", "masked pixels <= 10%"][1] == 1
    assert steps["sample", "S/N >= 10"][1] == 1


def test_survey_holds_the_binned_spectra(world):
    folder, stars = world
    stars.flux[1, -7:], stars.error[1, -7:] = 1, 0.01  # one star has the pixels that the others lack
    write_bulk(folder / "rvs" / "RvsMeanSpectrum_0.csv.gz", subset(stars, slice(0, 17)))
    run(folder)
    with Survey(folder / "my.h5") as survey:
        assert survey.n_pixels == 100
        np.testing.assert_allclose(survey.wavelength, stars.wavelength[:300].reshape(100, 3).mean(axis=1))
        row = np.searchsorted(survey.source_id, stars.ids[0])
        weight = 1 / stars.error[0, :3].astype(float) ** 2
        assert survey.flux(row, row + 1)[0, 0] == pytest.approx(np.average(stars.flux[0, :3], weights=weight), rel=1e-5)
        assert survey.flux_error(row, row + 1)[0, 0] == pytest.approx(weight.sum() ** -0.5, rel=1e-5)
        good = np.isfinite(stars.flux[0])
        assert survey.column("rvs_snr")[row] == pytest.approx(
            np.median(stars.flux[0, good] / stars.error[0, good]), rel=1e-5
        )
        assert np.isnan(survey.flux()[:, -2:]).all(axis=1).sum() == len(survey) - 1 and survey.column(
            "masked_fraction"
        )[row] == pytest.approx(0.02)


def test_pixels_that_no_star_has_are_left_out(world, capsys):
    folder, _ = world
    assert run(folder).tally.empty_pixels == 2
    with Survey(folder / "my.h5") as survey:
        assert survey.n_pixels == 98 and np.isfinite(survey.flux()).all()
        assert survey.column("masked_fraction")[0] == pytest.approx(0.02)
    assert "2 pixels are masked in every star" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["mean", "resample", "none"])
def test_other_pixels(world, method):
    folder, _ = world
    run(folder, pixels=Pixels(method=method, start=846.5, step=0.05, number=40))
    with Survey(folder / "my.h5") as survey:
        assert survey.n_pixels == {"mean": 98, "resample": 40, "none": 294}[method]


def test_bulk_and_individual_files_make_the_same_survey(world):
    folder, stars = world
    run(folder)
    with Survey(folder / "my.h5") as survey:
        expected = survey.content_hash
    for file in (folder / "rvs").iterdir():
        file.unlink()
    for i, source_id in enumerate(stars.ids):
        write_table(folder / "rvs" / f"RVS-Gaia DR3 {source_id:020d}.fits", individual_table(stars, i))
    run(folder, overwrite=True)
    with Survey(folder / "my.h5") as survey:
        assert survey.content_hash == expected


def test_two_processes_make_the_same_survey(world, monkeypatch):
    import spectangle.archives.gaia.gaia_files as module

    folder, _ = world
    monkeypatch.setattr(module, "GROUP_FILES", 1)
    hashes = []
    for workers in (1, 2):
        run(folder, workers=workers, overwrite=True)
        with Survey(folder / "my.h5") as survey:
            hashes.append(survey.content_hash)
    assert hashes[0] == hashes[1]


def test_an_interrupted_run_goes_on(world, monkeypatch, capsys):
    import spectangle.archives.gaia.gaia_files as files
    import spectangle.archives.parallel as module

    folder, _ = world
    run(folder)
    with Survey(folder / "my.h5") as survey:
        expected = survey.content_hash
    (folder / "my.h5").unlink()
    monkeypatch.setattr(files, "GROUP_FILES", 1)
    real, done = module.convert, []

    def stop_at_the_second(job, paths, part):
        if done:
            raise KeyboardInterrupt
        done.append(paths)
        return real(job, paths, part)

    monkeypatch.setattr(module, "convert", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert not (folder / "my.h5").exists() and len(list((folder / "my.h5.parts").glob("*.h5"))) == 1
    read = []
    monkeypatch.setattr(module, "convert", lambda job, paths, part: read.append(paths) or real(job, paths, part))
    run(folder)
    assert len(read) == 1 and "Going on: 1 of 2" in capsys.readouterr().out
    with Survey(folder / "my.h5", verify=True) as survey:
        assert survey.content_hash == expected
    assert not (folder / "my.h5.parts").exists()


class Dying(GaiaFiles):
    """A source whose second file kills the process that reads it."""

    def read(self, path, bad, wanted=None):
        if path.name.endswith("1.csv.gz"):
            os._exit(9)
        return super().read(path, bad, wanted)


def test_a_killed_process_is_a_sentence(world, monkeypatch):
    folder, _ = world
    monkeypatch.setattr("spectangle.archives.gaia.gaia_files.GROUP_FILES", 1)
    with pytest.raises(SpectangleError, match=r"killed.*workers=1.*goes on"):
        prepare(Dying(str(folder / "rvs")), folder / "my.h5", sources(folder), workers=2)
    assert not (folder / "my.h5").exists()


def test_a_stop_while_writing_leaves_no_survey(world, monkeypatch):
    from spectangle.survey.writer import SurveyWriter

    folder, _ = world
    real = SurveyWriter.append
    calls = []

    def stop(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(SurveyWriter, "append", stop)
    monkeypatch.setattr("spectangle.archives.gaia.gaia_files.GROUP_FILES", 1)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert not (folder / "my.h5").exists()


def test_changed_files_and_settings_are_read_again(world, monkeypatch):
    from spectangle.archives.convert import Job, part_path

    folder, stars = world
    path = folder / "rvs" / "RvsMeanSpectrum_0.csv.gz"
    job = Job(GaiaFiles(str(folder / "rvs")), Pixels(), stars.ids, folder, 0)
    first = part_path(job, job.digest(), [path])
    other = Job(job.source, Pixels(method="mean"), stars.ids, folder, 0)
    assert part_path(other, other.digest(), [path]) != first
    fewer = Job(job.source, Pixels(), stars.ids[1:], folder, 0)
    assert part_path(fewer, fewer.digest(), [path]) != first
    write_bulk(path, subset(stars, slice(0, 9)))
    assert part_path(job, job.digest(), [path]) != first


def test_the_real_spectra_become_a_survey(tmp_path):
    files = [REAL / f"gaia_dr3_rvs_{name}.csv.gz" for name in ("kepler93", "hd176650")]
    if not all(file.is_file() for file in files):
        pytest.skip("the two real spectra are not beside the project (ESA/Gaia/DPAC; isabelangelo/gaiaspec)")
    ids = np.array([2052747119115620352, 4268620287278693120])
    labels = {"teff": [5670.0, 4100.0], "logg": [4.47, 1.6], "m_h": [-0.15, 0.0], "alpha_fe": [0.0, 0.05]}
    Table({"source_id": ids, **labels, "phot_g_mean_mag": [9.75, 8.1]}).write(tmp_path / "labels.ecsv")
    source = GaiaFiles(str(REAL / "gaia_dr3_rvs_*.csv.gz"))
    prepare(source, tmp_path / "my.h5", LabelSources(table=str(tmp_path / "labels.ecsv")), report=False)
    with Survey(tmp_path / "my.h5", verify=True) as survey:
        assert survey.source_id.tolist() == ids[::-1].tolist() and survey.n_pixels == 800
        flux, line = survey.flux(), np.argmin(np.abs(survey.wavelength - 854.444))
        assert (flux[:, line] < 0.6).all() and 0.9 < np.nanmedian(flux) < 1.1
        assert np.isnan(flux).sum(axis=1).tolist() == [0, 2]
        assert (survey.column("rvs_snr") > 50).all() and survey.column("median_normalised").tolist() == [0, 0]


def test_report_page_stands_alone(world):
    folder, _ = world
    run(folder, report=True)
    page = (folder / "my.html").read_text()
    for words in ("Funnel", "Fig. 3", "Kiel", "Signal to noise", "spectra", "64,305", "APOGEE DR17 - GALAH DR3"):
        assert words in page
    assert "scaled to a median of 1" in page
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"""(src|href)=['"]?(http|/)""", page)
    assert "name=viewport" in page and "prefers-color-scheme:dark" in page


def test_figures_of_the_report_have_units_and_nothing_on_top_of_each_other(world):
    folder, _ = world
    run(folder)
    with Survey(folder / "my.h5") as survey:
        labels = {name: survey.label(name) for name in survey.labels}
        units = {name: survey.unit(name) for name in labels}
        (axes,) = _example_spectra(survey, labels, units).axes
    words = [text for text in axes.texts if text.get_text()]
    assert len(words) == 6 and all(text.get_position()[0] > 1 for text in words)  # beside the frame
    assert all(re.search(r"\d K, .*\d dex", text.get_text()) for text in words)
    for catalogues, drawn in ((["APOGEE"], 1), (["APOGEE", "GALAH"], 3)):
        axes = label_figure(labels, units, np.resize(catalogues, len(labels["teff"]))).axes[0]
        assert len(axes.get_legend_handles_labels()[1]) == drawn
        axes.set_ylim(4, 60)
        assert [axes.yaxis.get_major_formatter()(v) for v in (5, 50)] == ["5", "50"]
        assert not any(axes.yaxis.get_minor_formatter().format_ticks([6, 20]))


def test_cool_stars_scaled_to_their_median_are_flagged():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, (2, 800))
    normal = 1 - 0.4 * (rng.random((1, 800)) < 0.15)
    cool = 1 + 0.15 * np.sin(np.linspace(0, 20, 800))[None] + 0 * normal
    flux = (np.concatenate([normal, cool / np.median(cool)]) + noise).astype(np.float32)
    flux[1] /= np.median(flux[1])
    error = np.full_like(flux, 0.005)
    assert median_normalised(flux, error).tolist() == [0, 1]
    flux[:, :5] = np.nan
    assert signal_to_noise(flux, error)[0] == pytest.approx(np.nanmedian(flux[0]) / 0.005, rel=1e-4)
