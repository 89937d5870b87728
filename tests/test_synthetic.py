"""The embedded survey: physics of the synthesis, error of the emulator, statistics and repeatability of the population.

Comparisons with the prototype and with real spectra run where ``shared/`` lies beside the repository.
"""

import csv
import gzip
import importlib.util
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.synthetic import LABELS, LIMITS, WAVELENGTH, emulate, lines, rebuild, synthesise, write_survey
from spectangle.synthetic.elements import INDEX, abundances
from spectangle.synthetic.embedded import BLOCK, embedded_stars
from spectangle.synthetic.gas import solve_gas
from spectangle.synthetic.observation import BAD_PIXEL_ERROR, KMS_PER_PIXEL, observe_stars, shift_velocity
from spectangle.synthetic.population import CATALOGUE_ERRORS, draw_labels, draw_population, draw_vbroad, label_mixture

SHARED = Path(__file__).parents[2] / "shared"
SUN = (5777.0, 4.44, 0.0, 0.0)
TRIPLET = (850.04, 854.44, 866.45)  # nm, vacuum


def depth_at(spectra: np.ndarray, nanometres: float) -> np.ndarray:
    return 1.0 - spectra[..., np.abs(WAVELENGTH - nanometres).argmin()]


def test_sun_looks_like_the_sun():
    sun = synthesise(*SUN)
    assert sun.shape == (1, 800)
    assert 0.3 < sun.min() < 0.5 and sun.max() <= 1.0
    deepest = WAVELENGTH[sun[0].argmin()]
    assert abs(deepest - TRIPLET[1]) < 0.05
    assert all(depth_at(sun, line)[0] > 0.4 for line in TRIPLET)


def test_lines_deepen_with_metals():
    poor, solar, rich = synthesise(5500.0, 4.2, [-1.5, 0.0, 0.4], 0.0)
    assert (poor.mean() > solar.mean()) and (solar.mean() > rich.mean())
    assert (rich <= poor + 1e-4).mean() > 0.99
    for line in TRIPLET:
        assert depth_at(poor, line) < depth_at(solar, line) < depth_at(rich, line)


def test_alpha_deepens_alpha_lines_only():
    plain, enhanced = synthesise(5200.0, 4.4, 0.0, [0.0, 0.3])
    for alpha_line in (850.04, 854.44, 855.91, 865.08, 867.78):  # nm, vacuum: Ca II, Ca II, Si I, Si I, Ti I
        assert depth_at(enhanced, alpha_line) > depth_at(plain, alpha_line) + 0.005
    for iron_line in (858.46, 861.42, 862.40, 869.10):
        assert depth_at(enhanced, iron_line) < depth_at(plain, iron_line) + 0.001


def test_paschen_lines_appear_in_hot_stars():
    cool, hot = synthesise([5000.0, 7200.0], 4.0, -2.0, 0.0)
    paschen_14 = 860.1  # nm, vacuum, between the calcium lines
    assert depth_at(hot, paschen_14) > 0.08
    assert depth_at(cool, paschen_14) < 0.02


def test_rotation_keeps_the_area_of_lines():
    slow, fast = synthesise(*SUN, vbroad=[0.0, 30.0])
    assert slow.min() < fast.min()
    assert np.isclose((1 - slow).sum(), (1 - fast).sum(), rtol=2e-2)


def test_gas_conserves_charge_and_pressure():
    temperature, pressure = np.array([4000.0, 6000.0, 9000.0]), np.array([1e3, 1e5, 3e5])
    gas = solve_gas(temperature, pressure, abundances(0.0, 0.0)[:, None])
    ions = gas.hydrogen * (gas.abundances * gas.ratios / (gas.electrons + gas.ratios)).sum(0)
    assert np.allclose(ions, gas.electrons, rtol=1e-6)
    particles = gas.electrons + gas.hydrogen * gas.abundances.sum(0)
    assert np.allclose(particles * 1.380649e-16 * temperature, pressure, rtol=1e-12)


def test_doubly_ionised_atoms_are_not_counted_as_neutral():
    gas = solve_gas(np.array([9000.0]), np.array([1e4]), abundances(0.0, 0.0)[:, None])
    calcium = lines.strongest_lines()
    neutral = calcium.take((calcium.element == INDEX["Ca"]) & (calcium.ion == 0))
    share = lines.stage_density(gas, neutral) / gas.hydrogen / gas.abundances[INDEX["Ca"]]
    assert share.max() < 1e-3


def load_prototype():
    path = SHARED / "reference" / "lte_synthesis_prototype.py"
    if not path.exists():
        pytest.skip("the prototype of the synthesis does not lie beside this repository")
    spec = importlib.util.spec_from_file_location("lte_synthesis_prototype", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agrees_with_prototype(monkeypatch):
    """Hold the spectra to the prototype's, which counts doubly ionised atoms as neutral: do the same here."""
    prototype, proper = load_prototype(), lines.stage_density

    def not_ionised_once(gas, chosen):
        ions = proper(gas, replace(chosen, ion=np.ones_like(chosen.ion)))
        return np.where(chosen.ion[:, None] == 1, ions, gas.hydrogen * gas.abundances[chosen.element] - ions)

    labels = np.vstack([SUN, [4300, 1.5, 0.2, 0.1], [6800, 4.2, 0.1, 0.0], draw_labels(7, np.random.default_rng(5))])
    monkeypatch.setattr(lines, "stage_density", not_ionised_once)
    assert np.abs(synthesise(*labels.T, vbroad=7.0) - prototype.dataset(labels, vbroad=7.0)).max() < 1e-3


def read_real_spectrum(star: str) -> np.ndarray:
    path = SHARED / "data" / f"gaia_dr3_rvs_{star}.csv.gz"
    if not path.exists():
        pytest.skip("the real Gaia spectra do not lie beside this repository")
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["flux"]]
    return np.interp(WAVELENGTH, [float(r["wavelength"]) for r in rows], [float(r["flux"]) for r in rows])


def test_agrees_with_real_sun_like_star():
    """Compare with Gaia DR3 of Kepler-93: 5669 K, 4.47, -0.18 (Ballard et al. 2014); flux errors there are 0.008."""
    real = read_real_spectrum("kepler93")
    model = synthesise(5669.0, 4.47, -0.18, 0.05, vbroad=4.0)[0]
    inside = slice(10, -10)
    assert np.sqrt(np.mean((real - model)[inside] ** 2)) < 0.024


def test_emulator_matches_fresh_synthesis():
    rng = np.random.default_rng(20_000)
    labels = draw_labels(40, rng)
    vbroad = draw_vbroad(labels, rng)
    rms = np.sqrt(np.mean((emulate(labels, vbroad) - synthesise(*labels.T, vbroad=vbroad)) ** 2, axis=1))
    assert np.median(rms) < 1e-3
    assert np.sort(rms)[-2] < 3e-3


def test_emulator_file_is_small_and_plain():
    path = files("spectangle.synthetic") / "emulator.npz"
    assert path.stat().st_size <= 2_000_000
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype.kind == "f" for name in file.files)


def test_emulate_takes_names_or_a_table():
    table = draw_labels(5, np.random.default_rng(1))
    named = dict(zip(LABELS, table.T, strict=True))
    assert emulate(table, 6.0).shape == (5, 800) and emulate(table).dtype == np.float32
    assert np.array_equal(emulate(table, 6.0), emulate(named, np.full(5, 6.0)))


def test_emulate_refuses_what_it_never_saw():
    with pytest.raises(SpectangleError, match="teff runs from 3000"):
        emulate([[3000.0, 4.0, 0.0, 0.0]])
    with pytest.raises(SpectangleError, match="vbroad"):
        emulate([SUN], 300.0)


def test_rebuild_explains_itself():
    command = [sys.executable, "-m", "spectangle.synthetic.rebuild", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--components" in text and "--seed" in text


def test_rebuild_makes_an_emulator(tmp_path, capsys):
    output = tmp_path / "emulator.npz"
    rebuild.main(["--stars", "60", "--components", "20", "--epochs", "20", "--unseen", "8", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "population: median" in printed and "99th percentile" in printed
    emulator = rebuild.Emulator.load(output)
    assert emulator(np.array([SUN]), np.array([5.0])).shape == (1, 800)
    assert list(tmp_path.iterdir()) == [output]


def test_rebuild_refuses_too_little():
    with pytest.raises(SystemExit):
        rebuild.main(["--epochs", "2"])


def test_principal_components_span_the_spectra():
    rng = np.random.default_rng(0)
    spectra = (rng.standard_normal((200, 3)) @ rng.standard_normal((3, 50)) + 1.0).astype(np.float32)
    mean, components = rebuild.principal_components(spectra, 3)
    assert np.allclose(components @ components.T, np.eye(3), atol=1e-4)
    assert np.allclose((spectra - mean) @ components.T @ components + mean, spectra, atol=1e-3)


def test_population_follows_the_mixture():
    mixture, labels = label_mixture(), draw_labels(40_000, np.random.default_rng(3))
    assert (labels >= LIMITS[:, 0]).all() and (labels <= LIMITS[:, 1]).all()
    scaled_mean = mixture.weights @ mixture.means
    second = np.einsum("m,mi,mi->i", mixture.weights, mixture.means, mixture.means)
    spread = np.sqrt(second + np.einsum("m,mii->i", mixture.weights, mixture.covariances) - scaled_mean**2)
    assert np.allclose((labels.mean(0) - mixture.shift) / mixture.scale, scaled_mean, atol=0.05)
    assert np.allclose(labels.std(0) / mixture.scale, spread, rtol=0.05)


def test_population_looks_like_a_survey():
    stars = draw_population(20_000, np.random.default_rng(4))
    assert stars.magnitude.min() >= 8 and stars.magnitude.max() <= 14
    counts, _ = np.histogram(stars.magnitude, bins=6, range=(8, 14))
    assert (np.diff(counts) > 0).all()
    assert np.median(stars.snr[stars.magnitude < 9]) > 5 * np.median(stars.snr[stars.magnitude > 13])
    hot_dwarf = (stars.labels[:, 0] > 6500) & (stars.labels[:, 1] > 3.8)
    assert np.median(stars.vbroad[hot_dwarf]) > 2 * np.median(stars.vbroad[~hot_dwarf])
    assert np.allclose((stars.catalogue - stars.labels).std(0), CATALOGUE_ERRORS, rtol=0.15)
    pull = (stars.catalogue - stars.labels) / stars.label_errors
    assert np.allclose(pull.std(0), 1.0, atol=0.03) and np.abs(pull.mean(0)).max() < 0.03


def test_source_ids_are_unique_and_too_long_for_floats():
    ids = np.concatenate([draw_population(500, np.random.default_rng(s), 500 * s).source_id for s in range(4)])
    assert ids.dtype == np.int64 and len(np.unique(ids)) == 2000
    assert (ids >= 10**18).all()
    assert (ids.astype(float).astype(np.int64) != ids).mean() > 0.9


def test_shift_moves_lines_by_the_velocity():
    pixel = np.arange(800.0)

    def line(centre: np.ndarray) -> np.ndarray:
        return 1.0 - 0.6 * np.exp(-0.5 * ((pixel - centre[:, None]) / 1.1) ** 2)

    velocity = np.array([-14.0, -3.0, 0.0, 0.4, 8.0])
    start = np.full(len(velocity), 400.0)
    assert np.allclose(shift_velocity(line(start), velocity), line(start + velocity / KMS_PER_PIXEL), atol=5e-3)
    assert np.array_equal(shift_velocity(line(start), 0 * velocity), line(start))


def test_noise_is_what_the_errors_say():
    rng = np.random.default_rng(6)
    clean = np.repeat(synthesise(*SUN).astype(np.float32), 300, axis=0)
    snr = rng.uniform(15, 60, 300)
    flux, error = observe_stars(clean, snr, np.zeros(300), rng)
    bad = np.isnan(flux)
    assert 5e-4 < bad.mean() < 2e-3 and np.isfinite(error).all() and (error > 0).all()
    assert (error[bad] == BAD_PIXEL_ERROR).all()
    pull = ((flux - clean) / error)[~bad]
    assert 0.95 < pull.std() < 1.1
    continuum = clean[0] > 0.99
    assert np.allclose(1 / np.median(error[:, continuum], axis=1), snr, rtol=0.05)


def test_same_seed_same_survey(tmp_path):
    surveys = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        with Survey(write_survey(tmp_path / f"{name}.h5", n_stars=300, seed=seed), verify=True) as survey:
            surveys.append(survey.content_hash)
    assert surveys[0] == surveys[1] != surveys[2]


def test_smaller_survey_is_the_start_of_a_larger_one():
    [(small, small_flux, _)] = embedded_stars(100, seed=1)
    blocks = list(embedded_stars(BLOCK + 50, seed=1))
    assert [len(flux) for _, flux, _ in blocks] == [BLOCK, 50]
    assert np.array_equal(small.source_id, blocks[0][0].source_id[:100])
    assert np.array_equal(small_flux, blocks[0][1][:100], equal_nan=True)


def test_survey_file_says_what_it_is(tmp_path):
    with Survey(write_survey(tmp_path / "survey.h5", n_stars=64)) as survey:
        assert len(survey) == 64 and set(survey.labels) == set(LABELS)
        assert "synthetic" in survey.attributes["origin"]
        assert survey.unit("teff") == "K" and survey.flux().dtype == np.float32
        expected = {
            "snr",
            "phot_g_mean_mag",
            "vbroad",
            "radial_velocity_residual",
            *(f"true_{name}" for name in LABELS),
        }
        assert set(survey.columns) == expected
        offset = survey.label("teff") - survey.column("true_teff")
        assert 20 < offset.std() < 100


def test_empty_survey_is_refused(tmp_path):
    with pytest.raises(SpectangleError, match="at least 1"):
        write_survey(tmp_path / "none.h5", n_stars=0)
    assert not list(tmp_path.iterdir())
