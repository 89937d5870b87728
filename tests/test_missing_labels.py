"""Stars that lack labels: what they teach, what they are left out of, and that their survey goes all the way."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from commands import Command
from conftest import write_toy_survey
from sklearn.linear_model import Ridge

from spectangle.archives import Cuts, Plain, prepare
from spectangle.data.load import load_stars
from spectangle.data.module import SpectraDataModule
from spectangle.data.stars import label_weights
from spectangle.errors import SpectangleError
from spectangle.evaluation.cross_fit import CrossFit, Measured, fitted_predictions
from spectangle.evaluation.leakage import leaks
from spectangle.evaluation.probes import Probes
from spectangle.evaluation.regressors import (
    LabelGroups,
    averaged_regressor,
    load_regressor,
    ridge_regressor,
    save_regressor,
    sklearn_regressor,
    small_survey_regressor,
    torch_regressor,
)
from spectangle.inference.load import load
from spectangle.inference.readout import Readout
from spectangle.model.adversary import Adversary
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.epoch_means import EpochMeans, star_counts
from spectangle.model.losses import OBJECTIVES, adversarial_loss, cross_entropy, label_likelihood, star_shares
from spectangle.model.priors import BinPriors
from spectangle.model.scaling import LabelBins, LabelScaler, ResidualLabels
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

NAN = float("nan")


def gappy(path: Path, n: int = 400) -> Path:
    """The toy survey; a third of the stars lack alpha_fe, 40 others have no label at all."""
    write_toy_survey(path, n=n)
    with h5py.File(path, "r+") as file:
        file["labels/alpha_fe"][: n // 3] = NAN
        for name in file["labels"]:
            file[f"labels/{name}"][n - 40 :] = NAN
    return path


# ---- the model --------------------------------------------------------------------------------------------------


def test_the_decoder_is_told_what_is_missing():
    scaler = LabelScaler(["teff", "logg"], incomplete=["logg"])
    scaler.fit(torch.tensor([[4000.0, 1.0], [6000.0, 3.0], [5000.0, NAN]]))
    assert scaler.mean.tolist() == [5000, 2]
    told = scaler(torch.tensor([[6000.0, 3.0], [5000.0, NAN]]))
    assert told[:, 1:].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert scaler(torch.tensor([[5000.0, NAN]]), torch.tensor([[0.7]]))[0].tolist() == pytest.approx([0, 0.7, 1])


def test_a_complete_survey_has_the_model_that_it_always_had():
    model = DisentanglingAutoencoder(40, ["teff", "logg"], latent=5, hidden=(16,))
    assert model.decoder.layers[0].in_features == 7 and model.estimator is None


@pytest.mark.parametrize("kind", ["categorical", "binary"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stars_without_the_label_do_not_count(kind, objective):
    torch.manual_seed(0)
    bins = torch.randint(0, 4, (1, 30))
    logits = torch.randn(1, 30, 4) + 3 * torch.nn.functional.one_hot(bins, 4)  # better than chance: nothing is capped
    prior, known = torch.full((1, 4), 0.25), torch.arange(30) % 3 > 0
    bins[:, ~known] = -1
    torch.testing.assert_close(cross_entropy(logits, bins, kind), cross_entropy(logits[:, known], bins[:, known], kind))
    if objective != "flipped":  # which draws
        whole = adversarial_loss(logits, bins, prior, objective, kind)
        torch.testing.assert_close(
            whole, adversarial_loss(logits[:, known], bins[:, known], prior, objective, kind), rtol=1e-5, atol=1e-6
        )
    logits.requires_grad_()
    adversarial_loss(logits, bins, prior, objective, kind).sum().backward()
    assert logits.grad is not None and not logits.grad[:, ~known].any() and logits.grad[:, known].any()


def test_the_mean_of_an_epoch_is_over_the_stars_that_have_the_label():
    """Three batches of eight, one star of which has the second label: a discriminator that knows nothing is at ln 4."""
    means, classes = EpochMeans(), torch.zeros(24, 2, dtype=torch.long)
    classes[1:, 1] = -1
    for rows in torch.arange(24).split(8):
        batch = (torch.zeros(8, 3), torch.zeros(8), torch.zeros(8, 2), classes[rows], torch.ones(8, 2))
        losses = cross_entropy(torch.zeros(2, 8, 4), classes[rows].T)
        means.add({"discriminator": losses, "loss": torch.tensor(2.0)}, star_counts(batch))
    found = means.take()
    assert found["discriminator"].tolist() == pytest.approx([np.log(4)] * 2) and found["loss"] == 2


def test_chance_is_never_above_what_all_stars_tell():
    """Cells of a few stars tell less of a rare label than all stars together do."""
    random = np.random.default_rng(0)
    entangled, bins = torch.from_numpy(random.normal(size=(200, 2))).float(), torch.full((200, 1), -1)
    bins[:14, 0] = torch.from_numpy(random.integers(0, 10, 14))
    shares = torch.bincount(bins[:14, 0], minlength=10)[None] / 14
    chance = BinPriors(shares, [True]).fit(entangled, bins).chance(entangled, bins, "categorical")
    assert chance.item() == pytest.approx(torch.special.entr(shares).sum().item(), rel=1e-5)


def test_what_the_kept_labels_tell_is_learnt_from_other_stars():
    """Of a label that does not follow from them, chance is the entropy, also where a cell has few stars."""
    random = np.random.default_rng(0)
    entangled, bins = torch.from_numpy(random.normal(size=(3000, 2))).float(), random.integers(0, 10, (3000, 1))
    shares = torch.bincount(torch.from_numpy(bins[:, 0]), minlength=10)[None] / 3000
    chance = BinPriors(shares, [True]).fit(entangled, torch.from_numpy(bins))
    assert chance.chance(entangled, torch.from_numpy(bins), "categorical").item() == pytest.approx(np.log(10), abs=0.01)


def test_a_weight_of_two_is_the_star_twice():
    torch.manual_seed(0)
    logits, bins, weights = torch.randn(1, 3, 4), torch.tensor([[0, 1, 2]]), torch.tensor([[2.0, 1.0, 1.0]])
    shares, twice = star_shares(torch.ones(1, 3, dtype=torch.bool), weights), [0, 0, 1, 2]
    torch.testing.assert_close(
        cross_entropy(logits, bins, shares=shares), cross_entropy(logits[:, twice], bins[:, twice])
    )
    outputs, labels = torch.randn(1, 3, 2), torch.randn(1, 3)
    torch.testing.assert_close(
        label_likelihood(outputs, labels, shares),
        label_likelihood(outputs[:, twice], labels[:, twice]),
    )


def test_bins_and_residuals_are_fitted_to_the_stars_that_have_the_label():
    random = np.random.default_rng(0)
    labels = random.normal(size=(500, 2)).astype(np.float32)
    gaps = labels.copy()
    gaps[:100, 1] = NAN
    whole, few = LabelBins(["a", "b"]), LabelBins(["a", "b"])
    whole.fit(torch.from_numpy(labels[100:]))
    few.fit(torch.from_numpy(gaps))
    torch.testing.assert_close(few.edges[1], whole.edges[1])
    torch.testing.assert_close(few.prior[1], whole.prior[1])
    bins = few(torch.from_numpy(gaps))
    assert (bins[:100, 1] == -1).all() and (bins[100:] >= 0).all() and (bins[:, 0] >= 0).all()
    residual = ResidualLabels([0], [1]).fit(gaps)(gaps)
    assert np.isnan(residual[:100, 1]).all() and np.isfinite(residual[100:, 1]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"condition_on": "entangled", "entangle_with": "regression"},
        {"condition_on": "residual", "objective": "uniform"},
        {"discriminators": "joint"},
        {"ensemble": 2, "objective": "flipped"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_adversary_trains_on_gaps(options):
    torch.manual_seed(0)
    labels = torch.randn(400, 3)
    labels[:150, 1], labels[100:200, 2] = NAN, NAN
    lambdas = {"b": 1.0, "c": 1.0} if "discriminators" in options else {"a": -1.0, "b": 1.0, "c": -1.0}
    adversary = Adversary("abc", 4, lambdas, {"count": 4}, **options)
    adversary.calibrate(labels, labels.nan_to_num(0.0))
    classes, z = adversary.classify(labels), torch.randn(400, 4, requires_grad=True)
    assert torch.isfinite(adversary.chance).all() and torch.isfinite(adversary.prior).all()
    y, weights = labels.nan_to_num(0.0), torch.ones(400, 3)
    assert torch.isfinite(adversary.cross_entropy(z, adversary.ask(y, classes, weights))).all()
    loss = adversary.penalty(z, adversary.ask(y, classes, weights))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all() and z.grad.any()


# ---- stars and regressors ---------------------------------------------------------------------------------------


def module(path, **options):
    data = SpectraDataModule(str(path), **options)
    data.setup()
    return data


def test_stars_without_labels_stay_unless_they_are_required(tmp_path):
    path = gappy(tmp_path / "a.h5")
    data = module(path)
    assert len(data.train) + len(data.validation) + len(data.test) == 400
    assert data.incomplete == ["teff", "logg", "m_h", "alpha_fe"]
    assert "Labels are missing: teff of 40, logg of 40, m_h of 40, alpha_fe of 173 stars" in data.notes[0]
    some = module(path, require=["teff"])
    assert some.incomplete == ["alpha_fe"] and "40 stars left out: without teff" in some.notes[0]
    assert module(path, require="all").incomplete == []
    with pytest.raises(SpectangleError, match=r"labels.require names vmic; the labels are teff"):
        module(path, require=["vmic"])


def test_an_infinite_label_is_a_missing_one(tmp_path):
    with h5py.File(write_toy_survey(tmp_path / "s.h5"), "r+") as file:
        file["labels/logg"][:3] = np.inf
    data = module(tmp_path / "s.h5")
    data.setup()
    assert "logg of 3 stars" in data.notes[-1]
    assert not any(torch.isinf(stars.labels).any() for stars in (data.train, data.validation, data.test))


def test_a_label_that_hardly_a_star_has_is_refused(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=200)
    with h5py.File(path, "r+") as file:
        file["labels/logg"][8:] = NAN
    with pytest.raises(SpectangleError, match=r"has the label logg of \d training.*12, 2 and 2 are needed"):
        module(path)


def test_weights_fall_with_the_error_and_are_one_on_average():
    errors = np.array([[50.0], [100.0], [100.0], [500.0], [NAN]], np.float32)
    weights = label_weights(errors, "errors")[:, 0]
    assert weights.mean() == pytest.approx(1) and weights[1] == weights[4]
    assert weights[0] / weights[1] == pytest.approx(1.6) and weights[1] / weights[3] == pytest.approx(13)
    zero = np.array([[0.0], [0.0], [0.0], [100.0], [100.0]], np.float32)
    np.testing.assert_allclose(label_weights(zero, "errors"), 1, rtol=1e-6, err_msg="an error of 0 is none")
    assert (label_weights(errors, "none") == 1).all() and (label_weights(errors * NAN, "errors") == 1).all()
    with pytest.raises(SpectangleError, match="labels.weight is 'error'"):
        label_weights(errors, "error")


def test_weights_of_the_survey_s_errors_reach_the_training(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=200)
    with h5py.File(path, "r+") as file:
        file.create_dataset("label_errors/teff", data=np.linspace(10, 100, 200).astype(np.float32))
    data = module(path, label_weight="errors")
    assert data.train.weights[0, 0] > 2 * data.train.weights[-1, 0] and (data.train.weights[:, 1:] == 1).all()
    *_, weights = next(iter(data.val_dataloader()))
    torch.testing.assert_close(weights, data.validation.weights)
    assert (module(path).train.weights == 1).all()


REGRESSORS = {
    "averaged": averaged_regressor((12,), epochs=100, batch_size=40),
    "ridge": ridge_regressor(),
    "sklearn": sklearn_regressor((12,), max_iter=60),
    "torch": torch_regressor((12,), max_iter=200, patience=100, batch_size=20),
    "small": small_survey_regressor((8,), members=2, max_iter=30),
}


@pytest.fixture
def latents():
    random = np.random.default_rng(0)
    z = (random.normal(size=(400, 5)) * [1, 2, 3, 1, 1] + 4).astype(np.float32)
    labels = np.column_stack([5000 + 300 * z[:, 0], z[:, 1], np.sin(z[:, 2])])
    labels[:150, 1] = NAN
    return z, labels


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", REGRESSORS)
def test_each_label_is_learnt_from_the_stars_that_have_it(latents, name, tmp_path):
    z, labels = latents
    fitted = LabelGroups(REGRESSORS[name]).fit(z, labels)
    alone = REGRESSORS[name].fit(z[150:], labels[150:, [1]])
    np.testing.assert_allclose(fitted.predict(z)[:, 1], np.ravel(alone.predict(z)), rtol=1e-6)
    save_regressor(fitted, tmp_path / "r.skops")
    readout = Readout.from_regressor(load_regressor(tmp_path / "r.skops"))
    scale = np.nanstd(labels, axis=0)
    with torch.no_grad():
        np.testing.assert_allclose(readout(torch.from_numpy(z)) / scale, fitted.predict(z) / scale, atol=2e-4)
    np.testing.assert_allclose(readout.label_mean, np.nanmean(labels, axis=0), rtol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_hardly_hears_stars_of_small_weight(latents, name):
    z, labels = latents
    labels = labels[:, [0]]
    wrong = labels.copy()
    wrong[:200] += 3000
    weights = np.ones_like(labels)
    weights[:200] = 1e-6
    errors = [
        np.abs(LabelGroups(REGRESSORS[name]).fit(z, wrong, w).predict(z)[200:] - labels[200:]).mean()
        for w in (None, weights)
    ]
    assert errors[1] < errors[0] / 2


def test_a_regressor_that_takes_no_weights_is_refused(latents):
    from sklearn.neighbors import KNeighborsRegressor

    with pytest.raises(SpectangleError, match="labels.weight=errors needs a regressor that takes weights"):
        LabelGroups(KNeighborsRegressor()).fit(*latents, np.ones_like(latents[1]))


# ---- probes -----------------------------------------------------------------------------------------------------


def test_probes_learn_each_label_from_its_stars(latents):
    z, labels = latents
    found = fitted_predictions({"ridge": Ridge()}, [z[:300]], [labels[:300]], [z[300:]])["ridge"][0]
    alone = fitted_predictions({"ridge": Ridge()}, [z[150:300]], [labels[150:300]], [z[300:]])["ridge"][0]
    np.testing.assert_allclose(found[:, 1], alone[:, 1], atol=1e-4)
    assert np.isfinite(found).all()


def test_an_excess_rests_on_the_stars_that_have_the_kept_labels():
    random = np.random.default_rng(0)

    def measured(n, lost, shift):
        kept, own = random.normal(size=(2, n))
        labels = np.column_stack([kept, own])
        labels[: n // 2, 0] = NAN  # half lack the kept label
        z = np.column_stack([kept, lost * own, random.normal(size=n)])
        unknown = np.full((n, 2), NAN)
        return Measured(np.arange(n) + shift, z, labels, unknown, unknown)

    def excess(lost):
        fit = CrossFit({"ridge": Ridge()}, measured(400, lost, 1), measured(600, lost, 1000))
        z_only = fit.predictions(lambda stars: stars.z, lambda stars: stars.labels)
        return leaks(fit, z_only, [0], [1], bootstrap=20, seed=0)[1].excess

    assert excess(0.0) == pytest.approx(0, abs=0.03) and excess(1.0) > 0.9


def test_where_no_star_has_both_labels_nothing_is_said_and_nothing_breaks(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=300)
    with h5py.File(path, "r+") as file:
        file["labels/teff"][:150], file["labels/m_h"][150:] = NAN, NAN
    data = module(path, labels=["teff", "m_h"])
    adversary = SimpleNamespace(entangled=[0], disentangled=[1], joint=False)
    random = np.random.default_rng(0)
    model = SimpleNamespace(
        embed_stars=lambda stars: random.normal(size=(len(stars), 3)), targets=data.labels, adversary=adversary
    )
    scores = Probes({"ridge": Ridge()}, bootstrap=5).score(model, data, data.test, spare=data.validation)  # pyright: ignore
    assert "excess/m_h" not in scores and "largest_excess" not in scores
    assert np.isfinite(list(scores.values())).all() and "probe/m_h/r2" in scores


# ---- the whole way ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run on a survey with gaps, with probes and figures."""
    folder = tmp_path_factory.mktemp("gaps")
    survey = gappy(folder / "gaps.h5")
    words = ["data=survey", f"data.path={survey}", "lambdas=first_pair", "experiment=smoke", "threads=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["spectangle", "train", *words, f"hydra.run.dir={folder / 'run'}"])
        from spectangle.commands.main import main

        main()
    return folder / "run"


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


def test_a_run_says_how_many_stars_each_number_rests_on(run):
    metrics = json.loads((run / "metrics.json").read_text())
    with Survey(run.parent / "gaps.h5") as survey:
        assert np.isnan(survey.label("alpha_fe")).sum() == 173
    data = load_stars(Run(run))
    for i, name in enumerate(data.labels):
        known = int(torch.isfinite(data.test.labels[:, i]).sum())
        assert metrics[f"test/stars/{name}"] == metrics[f"probe/{name}/stars"] == known
        assert np.isfinite(metrics[f"test/latent/{name}/mae"]) and np.isfinite(metrics[f"probe/{name}/r2"])
    assert metrics["test/stars/alpha_fe"] < metrics["test/stars/teff"] < len(data.test)


def test_its_predictions_have_every_label_and_intervals(run, tmp_path, command):
    code, out, err = command("predict", f"run={run}", f"spectra={run.parent / 'gaps.h5'}", f"out={tmp_path / 'p.fits'}")
    assert code == 0, out + err
    from astropy.table import Table

    table = Table.read(tmp_path / "p.fits")
    for name in ("teff", "alpha_fe"):
        assert np.isfinite(table[name]).all() and (table[f"{name}_uncertainty"] > 0).all()
    calibration = load(run).calibration
    assert (
        calibration is not None
        and ((calibration.measured_coverage(0.68) > 0) & (calibration.measured_coverage(0.68) <= 1)).all()
    )


def test_it_is_exported_generated_from_and_explored(run, tmp_path, command):
    code, out, err = command("export", f"run={run}", f"out={tmp_path / 'model'}", "onnx=false")
    assert code == 0, out + err
    with Survey(run.parent / "gaps.h5") as survey:
        flux, ids = survey.flux(0, 5), survey.source_id[:5]
    here, there = (load(path).predict(flux, source_id=ids) for path in (run, tmp_path / "model"))
    np.testing.assert_allclose(there["alpha_fe"], here["alpha_fe"], rtol=1e-6)
    code, out, err = command("generate", f"run={run}", "set.teff=5500", f"out={tmp_path / 'g.h5'}", "n_stars=10")
    assert code == 0, out + err
    with Survey(tmp_path / "g.h5") as generated:
        assert np.isfinite(generated.flux()).all() and np.isfinite(generated.label("alpha_fe")).all()
    code, out, err = command("explore", f"run={run}", f"save={tmp_path / 'e.html'}", "stars=10", "map_stars=30")
    assert code == 0, out + err
    code, out, err = command("report", "kind=figures", f"runs=[{run}]")
    assert code == 0, out + err
    names = {path.stem for path in (run / "figures").glob("*.png")}
    assert {"predicted", "kiel_chemical", "information", "reconstruction"} <= names


# ---- from archives ----------------------------------------------------------------------------------------------


def test_prepare_keeps_stars_that_lack_labels(tmp_path, capsys):
    random = np.random.default_rng(0)
    np.save(tmp_path / "flux.npy", 1 - 0.1 * random.random((40, 60)))
    rows = ["source_id,teff,logg,vsini,logg_error"]
    for i in range(40):
        vsini, logg = ("" if i < 15 else f"{random.uniform(1, 50):.1f}"), (-999 if i == 20 else 4.1 + 0.01 * i)
        teff = "" if i == 39 else 5000 + i
        rows.append(f"{2**60 + i},{teff},{logg if i < 39 else ''},{vsini if i < 39 else ''},{0.9 if i == 30 else 0.1}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    plain = Plain(str(tmp_path / "flux.npy"), str(tmp_path / "labels.csv"))

    def made(name, **cuts):
        limits = {"g_min": None, "g_max": None, "max_errors": {"logg": 0.5}}
        prepare(plain, tmp_path / name, cuts=Cuts(**limits, **cuts), report=False)
        with Survey(tmp_path / name) as survey:
            return {label: survey.label(label) for label in survey.labels}

    kept = made("some.h5", require=[])
    assert len(kept["teff"]) == 39, "the star without any label is left out"
    assert np.isnan(kept["vsini"]).sum() == 15
    assert np.flatnonzero(np.isnan(kept["logg"])).tolist() == [20, 30], (
        "a sentinel, and a label with too large an error"
    )
    assert "Labels are missing: logg of 2 stars, vsini of 15 stars" in " ".join(capsys.readouterr().out.split())
    assert len(made("unlabelled.h5", require=[], unlabelled=True)["teff"]) == 40
    assert len(made("teff.h5", require=["vsini"])["teff"]) == 24
    assert len(made("all.h5", require="all")["teff"]) == 22
    with pytest.raises(SpectangleError, match=r"cuts.require names 'age'; .* has the labels teff, logg, vsini"):
        made("none.h5", require=["age"])


def test_spectra_that_no_catalogue_names_are_kept_if_asked(tmp_path):
    from archive_files import Stars as ArchiveStars
    from archive_files import write_bulk

    from spectangle.archives import GaiaFiles, LabelSources

    stars = ArchiveStars(30, n_pixels=201, edge=0)
    write_bulk(tmp_path / "RvsMeanSpectrum_0.csv", stars)
    rows = [f"{one},{5000 + i},{4.0 + 0.01 * i},{9 if i else 15}" for i, one in enumerate(stars.ids[:20])]
    (tmp_path / "labels.csv").write_text("source_id,teff,logg,phot_g_mean_mag\n" + "\n".join(rows) + "\n")

    def made(name, **cuts):
        labels = LabelSources(table=str(tmp_path / "labels.csv"))
        prepare(GaiaFiles(str(tmp_path / "RvsMeanSpectrum_0.csv")), tmp_path / name, labels, Cuts(**cuts), report=False)
        return Survey(tmp_path / name)

    with made("labelled.h5") as survey:
        assert len(survey) == 19, "one is too faint"
    with made("all.h5", unlabelled=True) as survey:
        origin = np.char.decode(survey.column("label_origin").astype("S64"))
        assert len(survey) == 29 and (origin == "").sum() == 10, "what a cut removed stays away"
        assert np.isnan(survey.label("teff")[origin == ""]).all()
        assert "no labels" not in survey.attributes["origin"]
    labels = LabelSources(table=str(tmp_path / "labels.csv"))
    rvs = GaiaFiles(str(tmp_path / "RvsMeanSpectrum_0.csv"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of histograms with gaps
        result = prepare(rvs, tmp_path / "told.h5", labels, Cuts(unlabelled=True))
    left = {step["step"]: step["left"] for step in result.funnel.steps if step["part"] == "sample"}  # pyright: ignore
    assert left["and 10 spectra of stars in no table"] == 29
    assert all(step["removed"] >= 0 for step in result.funnel.steps)  # pyright: ignore


def test_a_label_of_the_table_has_a_limit_without_a_plus(command):
    words = ["archive=plain", "spectra=a.npy", "labels_table=b.csv", "cuts.max_errors.fe_h=0.1"]
    code, out, err = command("prepare", *words, "--cfg", "job")
    assert code == 0 and "fe_h: 0.1" in out, err
