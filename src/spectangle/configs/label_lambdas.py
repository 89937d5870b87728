"""What ``lambdas`` of a config says of each label of a survey, which has the labels that it has."""

from collections.abc import Mapping, Sequence

from spectangle.errors import SpectangleError

__all__ = ["FATES", "OTHERS", "fate", "lambda_by_label"]

OTHERS = "others"  # the key that stands for every label that is not named
FATES = ("entangled", "neutral", "disentangled")  # what becomes of a label: lambda below, at and above 0


def fate(value: float | None) -> str:
    """What lambda does to a label, one of :data:`FATES`."""
    value = value or 0.0
    return FATES[1 + (value > 0) - (value < 0)]


def lambda_by_label(
    lambdas: Mapping[str, float | None], labels: Sequence[str], attributes: Sequence[str] = ()
) -> dict[str, float]:
    """Lambda of each label: its own, else that of ``others``, else 0; null counts as not named. After them that of each
    attribute: its own, else 0.

    Raises:
        SpectangleError: A label is named that the survey lacks, or the survey has one that is called ``others``.
    """
    values = {name: float(value) for name, value in lambdas.items() if value is not None}
    if OTHERS in labels:
        raise SpectangleError(
            f"The survey has a label '{OTHERS}', the word that stands in lambdas for every label that is not named; "
            "give the label another name, or leave it out with data.labels."
        )
    others = values.pop(OTHERS, 0.0)
    if unknown := [name for name, value in values.items() if value and name not in (*labels, *attributes)]:
        rest = f" lambdas.{OTHERS}=1 keeps {labels[0]} and loses the others" if len(labels) > 1 else " keeps it"
        raise SpectangleError(
            f"lambdas names {', '.join(unknown)}, but the survey's labels are {', '.join(labels)}. Name these instead: "
            f"lambdas=none lambdas.{labels[0]}=-1{rest}. A column with classes is named in labels.attributes first."
        )
    return {name: values.get(name, others) for name in labels} | {name: values.get(name, 0.0) for name in attributes}
