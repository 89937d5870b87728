"""Checkpoints: whole whatever happens, and each epoch written once."""

import errno
import os
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch

from spectangle.data.module import SpectraDataModule
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.runs.folder import Run
from spectangle.training.checkpoints import BestCheckpoint, LastCheckpoint
from spectangle.training.resumption import resumable


def train(survey, run, epochs=2, **best):
    data = SpectraDataModule(str(survey), batch_size=256)
    data.setup()
    known = {"n_pixels": data.n_pixels, "labels": list(data.labels), "latent": 3, "hidden": (8,)}
    model = DisentanglingAutoencoder(**known)
    model.calibrate(data.train.flux, data.train.targets)
    data.classify_with(model.adversary.classify)
    folder = str(run / "checkpoints")
    callbacks = [BestCheckpoint(folder, **best), LastCheckpoint(folder)]
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
