"""Checkpoints: whole whatever happens, and each epoch written once."""

import errno
import json
import os
import pickle
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf

from spectangle.data.module import SpectraDataModule
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.runs.folder import Run
from spectangle.runs.ownership import OWNER, Superseded, owned
from spectangle.training.checkpoints import BestCheckpoint, LastCheckpoint
from spectangle.training.resumption import Continuity, Resumed, measure_last_epoch, resumable


def train(survey, run, epochs=2, others=(), **best):
    data = SpectraDataModule(str(survey), batch_size=256)
    data.setup()
    known = {"n_pixels": data.n_pixels, "labels": list(data.labels), "latent": 3, "hidden": (8,)}
    model = DisentanglingAutoencoder(**known)
    model.calibrate(data.train.flux, data.train.targets)
    data.classify_with(model.adversary.classify)
    folder = str(run / "checkpoints")
    callbacks = [BestCheckpoint(folder, **best), LastCheckpoint(folder), *others]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    L.Trainer(max_epochs=epochs, callbacks=callbacks, num_sanity_val_steps=0, **quiet).fit(model, datamodule=data)


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


def test_the_last_epoch_is_written_once(toy_survey, tmp_path):
    train(toy_survey, tmp_path)
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert os.path.samefile(best, last) and epoch_of(last) == 1
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_without_links_it_is_written_twice(toy_survey, tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    train(toy_survey, tmp_path)
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert not os.path.samefile(best, last) and epoch_of(best) == epoch_of(last) == 1


def test_an_epoch_that_is_not_the_best_is_the_last(toy_survey, tmp_path):
    train(toy_survey, tmp_path, epochs=3, monitor="train/lambda_factor")  # the same in all epochs: the first is best
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert epoch_of(best) == 0 and epoch_of(last) == 2


def test_weights_alone_are_not_enough_to_go_on(toy_survey, tmp_path):
    train(toy_survey, tmp_path, save_weights_only=True)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["optimizer_states"] and "optimizer_states" not in torch.load(
        tmp_path / "checkpoints" / "best.ckpt", weights_only=True
    )


@pytest.mark.parametrize("which", [3, 4])
def test_one_that_is_cut_off_leaves_the_one_before(toy_survey, tmp_path, monkeypatch, which):
    """As where the temporary folder is another file system: there a move is a copy, which a kill may end."""
    moves = []

    def half_a_copy(source, target, **options):
        content = Path(source).read_bytes()
        moves.append(target)
        killed = len(moves) == which
        Path(target).write_bytes(content[: len(content) // 2] if killed else content)
        if killed:
            raise KeyboardInterrupt
        os.unlink(source)

    def refuse(*names):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "move", half_a_copy)
    with pytest.raises(SystemExit):
        train(toy_survey, tmp_path, epochs=3)
    monkeypatch.undo()
    (tmp_path / "checkpoints" / "last.ckpt.0123.part").touch()  # of one that was killed
    assert resumable(Run(tmp_path)).epoch == 0
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_who_was_taken_over_writes_no_checkpoint(toy_survey, tmp_path):
    """Another process goes on from the one before."""

    class TakenOver(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                facts = {"token": "another", "pid": 1, "host": "elsewhere", "since": "now"}
                (tmp_path / OWNER).write_text(json.dumps(facts))

    with owned(tmp_path), pytest.raises(Superseded):
        train(toy_survey, tmp_path, epochs=3, others=[TakenOver()])
    assert {epoch_of(path) for path in (tmp_path / "checkpoints").iterdir()} == {0}


def test_the_best_of_several_that_are_kept_is_the_best(toy_survey, tmp_path):
    train(toy_survey, tmp_path, epochs=3, monitor="train/lambda_factor", save_top_k=3)  # the first, as above
    folder = tmp_path / "checkpoints"
    assert os.path.samefile(folder / "best.ckpt", folder / "epoch=0.ckpt") and epoch_of(folder / "last.ckpt") == 2
    assert len(list(folder.iterdir())) == 5


def test_paths_of_a_moved_run_are_those_of_where_it_is(tmp_path):
    old, new = (BestCheckpoint(str(tmp_path / name), "val/x", save_top_k=2) for name in ("old", "new"))
    best, other = (str(tmp_path / "old" / f"epoch={epoch}.ckpt") for epoch in (3, 7))
    state = {"best_model_path": best, "kth_best_model_path": other, "best_k_models": {best: 1.0, other: 2.0}}
    new.load_state_dict(old.state_dict() | state)
    best, other = (str(tmp_path / "new" / f"epoch={epoch}.ckpt") for epoch in (3, 7))
    assert (new.best_model_path, new.kth_best_model_path, new.last_model_path) == (best, other, "")
    assert new.best_k_models == {best: 1.0, other: 2.0} and new.dirpath == str(tmp_path / "new")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"\x80\x02half", pickle.dumps([1], 2), None])
def test_what_is_no_checkpoint_is_removed_and_the_run_starts_again(tmp_path, content):
    path = Run(tmp_path, must_exist=False).last_checkpoint
    path.parent.mkdir()
    if content is None:
        torch.save({"state_dict": {}}, path)
    else:
        path.write_bytes(content)
    assert resumable(Run(tmp_path, must_exist=False)) is None and not path.exists()


def test_a_run_that_goes_on_knows_its_last_epoch_and_keeps_its_own_signals(tmp_path):
    """Of the epoch that the checkpoint holds, not of one that was written down later and lost; no test metrics."""
    (tmp_path / "metrics.csv").write_text("epoch,val/x,train/y,other/z\n0,1,2,3\n1,4,5,6\n2,7,8,9\n")
    going_on = Continuity(Run(tmp_path, must_exist=False), Resumed("last.ckpt", 1))
    trainer, before = SimpleNamespace(callback_metrics={}), signal.getsignal(signal.SIGTERM)
    try:
        going_on.on_fit_start(trainer, None)  # pyright: ignore
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Lightning does
        going_on.on_train_start(trainer, None)  # pyright: ignore
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.callback_metrics == {"val/x": 4, "train/y": 5}
    ended = SimpleNamespace(end_training=lambda: trainer.callback_metrics.clear())
    going_on.on_fit_end(trainer, SimpleNamespace(pack=ended))  # pyright: ignore
    assert not trainer.callback_metrics


@pytest.mark.parametrize(
    ("row", "epoch", "again"),
    [("1,0.5,0.1", 1, False), ("1,0.5,", 1, True), ("1,,0.1", 1, True), ("0,0.5,0.1", 1, True), ("0,0.5,", 0, False)],
)
def test_a_last_epoch_is_measured_again_if_anything_is_missing_that_the_run_is_judged_by(
    tmp_path, monkeypatch, row, epoch, again
):
    """Also where the reconstruction is there and the objective is not; and not before the training is over."""
    (tmp_path / "metrics.csv").write_text(f"epoch,val/reconstruction,val/x\n{row}\n")
    cfg = OmegaConf.create({"trainer": {"max_epochs": 2}, "callbacks": {}, "objective": "val/x"})
    measured, fit_loop = [], SimpleNamespace(epoch_progress=SimpleNamespace(current=SimpleNamespace(completed=0)))
    trainer = SimpleNamespace(fit_loop=fit_loop, validate=lambda *_, ckpt_path, **__: measured.append(ckpt_path))
    monkeypatch.setattr("hydra.utils.instantiate", lambda *_, **__: trainer)
    measure_last_epoch(cfg, Run(tmp_path, must_exist=False), Resumed("last.ckpt", epoch), None, None)  # pyright: ignore
    assert measured == (["last.ckpt"] if again else [])
    assert fit_loop.epoch_progress.current.completed == (1 if again else 0)
