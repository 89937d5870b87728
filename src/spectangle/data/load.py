"""Load the stars of a run."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

__all__ = ["load_stars", "survey_origin"]


def load_stars(run: Run, survey: str | Path | None = None) -> SpectraDataModule:
    """The stars of the run, split as they were in training.

    Arguments:
        run: The run.
        survey: Where the survey file lies now, if it was moved.

    Raises:
        SpectangleError: The survey is gone, or is not the one that the run was trained on.
    """
    options = _options(run)
    path = Path(survey) if survey else run.survey_path
    if not path.is_file():
        raise SpectangleError(f"The survey of {run.path} is not at {path} any more; say where it is: survey=FILE.")
    data = SpectraDataModule(str(path), **options)
    data.setup()
    if data.content_hash != run.manifest["survey"]["content_hash"]:
        raise SpectangleError(
            f"{path} is not the survey that {run.path} was trained on (its content_hash differs); give that one: "
            "survey=FILE."
        )
    return data


def _options(run: Run) -> dict[str, Any]:
    """What decides which stars are where, as :class:`SpectraDataModule` takes it."""
    node = OmegaConf.load(run.path / ".hydra" / "config.yaml").data
    wanted = (
        "labels",
        "n_stars",
        "test_fraction",
        "validation_fraction",
        "folds",
        "fold",
        "split_seed",
        "max_masked_fraction",
        "attributes",
        "require",
        "label_weight",
    )
    options = {key: OmegaConf.select(node, key) for key in wanted if key in node}
    options.setdefault("require", "all")  # of runs made when a star without a label was left out
    options = {
        key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in options.items()
    }
    if "EmbeddedSurvey" in str(node.get("_target_", "")):
        options.pop("n_stars", None)  # there it is the size of the survey
    return options


def survey_origin(run: Run) -> str:
    """What a run was trained on, in the words of its survey; of older runs, where the survey is still there."""
    if origin := run.manifest["survey"].get("origin"):
        return origin
    try:
        with Survey(run.survey_path) as survey:
            return survey.attributes["origin"]
    except SpectangleError:
        return f"unknown stars (survey {run.survey_path.name})"
