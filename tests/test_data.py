"""Stars for training: the split, the masks, the order."""

import h5py
import numpy as np
import pytest
import torch
from conftest import write_toy_survey

from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.data.module import SpectraDataModule
from spectangle.data.stars import (
    TEST,
    VALIDATION,
    Batches,
    class_codes,
    fill_masked,
    flux_noise,
    roles,
    star_order,
)
from spectangle.errors import SpectangleError


def module(path, **options):
    data = SpectraDataModule(str(path), **options)
    data.setup()
    return data


def edit(path, name, value, rows):
    with h5py.File(path, "r+") as file:
        file[name][rows] = value


IDS = np.random.default_rng(0).permutation(64305) * 128 + 2**60


def test_the_fractions_are_those_of_the_paper():
    role = roles(IDS, 0.2, 0.1, seed=0)
    assert (role == TEST).mean() == pytest.approx(0.2, abs=0.01)
    assert (role == VALIDATION).mean() == pytest.approx(0.08, abs=0.01)


def test_a_star_keeps_its_role_whoever_else_is_there():
    role = dict(zip(IDS.tolist(), roles(IDS, 0.2, 0.1, 3), strict=True))
    for some in (IDS[:20000], IDS[::-7], np.delete(IDS, 5)):
        assert all(role[star] == r for star, r in zip(some.tolist(), roles(some, 0.2, 0.1, 3), strict=True))
    assert (roles(IDS, 0.2, 0.1, 4) != roles(IDS, 0.2, 0.1, 3)).mean() > 0.3


def test_another_seed_draws_test_and_validation_stars_anew():
    """Each by itself: with validation stars that no seed changes, repeated splits would choose on the same stars."""
    one, other = roles(IDS, 0.2, 0.25, 3), roles(IDS, 0.2, 0.25, 4)
    assert (other[one == TEST] == TEST).mean() == pytest.approx(0.2, abs=0.02)
    neither = (one != TEST) & (other != TEST)
    assert (other[neither & (one == VALIDATION)] == VALIDATION).mean() == pytest.approx(0.25, abs=0.02)


def test_folds_test_every_star_once_and_validate_on_others():
    role = np.stack([roles(IDS, 0.2, 0.1, 0, folds=5, fold=fold) for fold in range(5)])
    assert ((role == TEST).sum(0) == 1).all()
    assert (role == TEST).mean(1) == pytest.approx(np.full(5, 0.2), abs=0.01)
    assert (roles(IDS, 0.2, 0.1, 0, folds=5, fold=0) == roles(IDS, 0.2, 0.1, 0)).all()


def test_a_subset_nests_and_keeps_its_test_stars(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=400)
    whole, half, few = (module(path, n_stars=n) for n in (None, 200, 60))
    for small, large in ((half, whole), (few, half)):
        for part in ("train", "validation", "test"):
            assert set(getattr(small, part).source_id) <= set(getattr(large, part).source_id)
    assert sum(len(part) for part in (few.train, few.validation, few.test)) == 60


def test_every_part_of_a_tiny_survey_has_stars():
    for seed in range(20):
        role = roles(np.arange(20) + 2**60, 0.01, 0.01, seed)
        assert (role == TEST).sum() == 2 and (role == VALIDATION).sum() == 2


def test_errors_and_truth_come_with_the_stars(own_cache):
    data = EmbeddedSurveyDataModule(n_stars=60)
    data.setup()
    scatter = (data.train.labels.numpy() - data.train.true_labels) / data.train.label_errors
    assert scatter.std() == pytest.approx(1, abs=0.2)


def test_masked_pixels_get_the_training_mean_and_mostly_masked_stars_leave(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=200)
    edit(path, "flux", np.nan, np.s_[3, :30])  # 30 of 40 pixels
    edit(path, "flux", np.inf, np.s_[5, 7])
    data = module(path)
    rows = np.concatenate([stars.rows for stars in (data.train, data.validation, data.test)])
    assert 3 not in rows and len(rows) == 199 and "1 stars left out" in data.notes[0]
    stars = next(stars for stars in (data.train, data.validation, data.test) if 5 in stars.rows)
    filled = stars.flux[list(stars.rows).index(5), 7]
    with h5py.File(path) as file:
        train = [row for row in data.train.rows if row != 5]
        assert float(filled) == pytest.approx(float(file["flux"][:][train, 7].mean()), abs=1e-6)


def test_masks_are_filled_with_what_training_stars_have_where_they_are_not_masked():
    """Test stars have no part in it: else they would be known before they are read."""
    nan = np.nan
    flux = np.array([[1, nan], [3, 4], [nan, 6], [100, nan], [nan, 100]], np.float32)
    fill_masked(flux, np.array([2, 0, 1]))
    assert flux.tolist() == [[1, 5], [3, 4], [2, 6], [100, 5], [2, 100]]


def test_classes_are_those_of_the_stars_that_are_used():
    """A class of stars that are left out would be asked for by nobody."""

    class Column:
        def column(self, name):
            return np.array([b"b", b"a", b"", b"rare", b"b"])

        def __len__(self):
            return 5

    codes, classes = class_codes(Column(), ["survey"], np.array([0, 1, 2, 4]))  # pyright: ignore
    np.testing.assert_array_equal(codes[:, 0], [1, 0, np.nan, np.nan, 1])
    assert classes == {"survey": ["a", "b"]}


def test_stars_without_a_required_label_leave(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=200)
    edit(path, "labels/logg", np.nan, np.s_[:10])
    assert "10 stars left out: without logg" in module(path, require=["logg"]).notes[0]
    assert "without teff or logg or m_h or alpha_fe" in module(path, require="all").notes[0]
    assert not module(path, labels=["teff"]).notes


def test_a_pixel_that_is_always_masked_is_refused(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=200)
    edit(path, "flux", np.nan, np.s_[:, 4])
    with pytest.raises(SpectangleError, match="1 of 40 pixels are masked in every training star"):
        module(path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": ["vmic"]}, "has no label 'vmic'; it has: teff, logg, m_h, alpha_fe"),
        ({"n_stars": 10**6}, "data.n_stars is 1000000"),
        ({"batch_size": 1}, "data.batch_size is 1"),
        ({"folds": 5, "fold": 5}, "data.folds is 5 and data.fold 5"),
        ({"test_fraction": 1.5}, "data.test_fraction is 1.5"),
        ({"max_masked_fraction": -1}, "has 0 usable stars of 400"),
    ],
)
def test_wrong_options_are_refused(toy_survey, options, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        module(toy_survey, **options)


def test_every_star_comes_once_in_an_order_of_its_seed(toy_survey):
    def order(seed):
        data = module(toy_survey, batch_size=50, seed=seed)
        data.train.classes = torch.from_numpy(data.train.rows)[:, None]
        return [int(row) for *_, rows, _ in data.train_dataloader() for row in rows]

    assert sorted(order(0)) == module(toy_survey).train.rows.tolist()
    assert order(0) == order(0) != order(1)


def test_every_epoch_of_every_seed_has_an_order_of_its_own():
    """Epochs of one seed are not those of the next one, later."""
    orders = {tuple(star_order(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16 and all(sorted(order) == list(range(50)) for order in orders)


def test_the_embedded_survey_is_made_once_and_then_read(own_cache):
    first = EmbeddedSurveyDataModule(n_stars=60)
    first.setup()
    written = first.path
    again = EmbeddedSurveyDataModule(n_stars=60)
    again.setup()
    assert again.path == written and again.content_hash == first.content_hash
    assert len(first.train) + len(first.validation) + len(first.test) == 60


def test_noise_is_the_flux_error_or_what_the_spectrum_shows():
    rng = np.random.default_rng(0)
    smooth = 0.9 + 0.05 * np.sin(np.linspace(0, 20, 800))
    true = np.array([0.01, 0.05, 0.02])
    flux = (smooth + true[:, None] * rng.standard_normal((3, 800))).astype(np.float32)
    np.testing.assert_allclose(flux_noise(flux, None), true, rtol=0.15)
    error = np.full_like(flux, 0.03)
    error[0, :100], error[1], error[2, :500] = 10.0, np.nan, 0.0  # bad pixels; a star without errors; unusable ones
    noise = flux_noise(flux, error)
    np.testing.assert_allclose(noise[[0, 2]], 0.03, rtol=1e-6)
    assert noise[1] == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize(("n", "size"), [(10, 4), (513, 256), (46_297, 256), (11, 2), (5, 256)])
def test_batches_are_equal_and_leave_nobody_out(n, size):
    """A last batch of a few stars would decide the running means of batch normalisation."""
    batches = Batches([torch.arange(n)], size, lambda: torch.randperm(n))
    parts = [part for (part,) in batches]
    lengths = [len(part) for part in parts]
    assert len(parts) == len(batches) and sorted(torch.cat(parts).tolist()) == list(range(n))
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 2 and max(lengths) <= max(size, 3)
