"""Which columns of a table are labels: every one with a number per star that is no id, position, magnitude, error or
flag.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectangle.archives.labels.label_table import UNITS
from spectangle.archives.tables.columns import find_column
from spectangle.archives.tables.missing import is_fill, is_missing, plausible
from spectangle.errors import SpectangleError

__all__ = ["LabelColumns", "check_label_names", "choose_labels", "error_column", "label_name"]

MOST = 0.9  # of the rows: a column that lacks more values than that is taken for something else
ALIASES = {"t_eff": "teff", "log_g": "logg", "feh": "fe_h", "mh": "m_h", "alphafe": "alpha_fe"}
ERROR_FORMS = (
    "{}_error",
    "{}_err",
    "{}err",
    "e_{}",
    "err_{}",
    "error_{}",
    "sigma_{}",
    "{}_sigma",
    "{}_unc",
    "{}_uncertainty",
    "{}_std",
)
KINDS = (  # what columns of these names hold instead of a label
    ("an id or a number", r"(.*_)?(id|ids|idx|index|row|nr|no|number|identifier)|designation|recno|col0|unnamed_0"),
    (
        "a position",
        r"(.*_)?(ra|dec|raj2000|dej2000|ra_icrs|de_icrs|glon|glat|gal_l|gal_b)|[lb]|ecl_(lon|lat)|(ra|dec)_.*|ref_epoch",
    ),
    ("astrometry", r"parallax.*|plx|pm|pm(ra|dec|de)(_.*)?|ruwe|astrometric_.*"),
    ("photometry", r"phot_.*|.*mag|mag_.*|[bgr]p_[bgr]p?|g_[br]p|[jhk]s?_m|(.*_)?ebv|.*_flux"),
    (
        "a velocity, which spectra in their rest frame do not show",
        r"(.*_)?(radial_velocity|rv|vhelio|vrad|v_rad|v_helio|rv_.*)(_avg)?",
    ),
    ("a quality", r"(.*_)?(snr|sn|s_n|snr_.*|chi2|chi2_.*|rchi2|nb_.*|quality|qual)|rvs_spec_sig_to_noise"),
    ("a flag", r"(.*_)?flags?(_.*)?|.*flag|has_.*|is_.*|.*_mask|.*bitmask"),
    ("a date", r"(.*_)?(mjd|jd|date|epoch|year)"),
)


@dataclass(frozen=True)
class LabelColumns:
    """Columns of a table: {label: column}, {label: column of its error}, and {column: why it is no label} of all
    others.
    """

    labels: dict[str, str]
    errors: dict[str, str]
    left: dict[str, str] = field(default_factory=dict)

    def sentence(self, where: str, key: str) -> str:
        """What was taken and what was left, and why."""
        reasons: dict[str, list[str]] = {}
        for column, why in self.left.items():
            reasons.setdefault(why, []).append(column)
        left = "; ".join(f"{', '.join(columns)} ({why})" for why, columns in reasons.items())
        taken, errors = (
            ", ".join(name if name == column else f"{name} (column {column})" for name, column in columns.items())
            for columns in (self.labels, self.errors)
        )
        return (
            f"{where}: the labels are {taken}."
            + (f" Their errors: {errors}." if errors else "")
            + (f" Left: {left}. To choose others: {key}='{{label: column}}'." if left else "")
        )


def label_name(column: str) -> str:
    """The name of a label in a survey, for a column of any spelling: [Fe/H] and Fe_H are fe_h.

    It is a word of letters, digits and underscores, as it is part of keys (lambdas.fe_h) and of paths in the file.
    """
    name = re.sub(r"\W+", "_", column.strip().lower().replace("α", "alpha"), flags=re.ASCII).strip("_")
    return ALIASES.get(name, f"_{name}" if name[:1].isdigit() else name)


def check_label_names(names: Iterable[str], key: str) -> None:
    """Refuse labels that cannot be keys.

    Raises:
        SpectangleError: A name is no word.
    """
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", str(name), flags=re.ASCII):
            near = label_name(str(name)) or "teff"
            raise SpectangleError(
                f"{key}: the label '{name}' cannot be a name in a survey (letters, digits and _ can); call it {near}."
            )


def error_column(column: str, available: Sequence[str]) -> str | None:
    """The column with the errors of another: Teff_error, e_Teff, TEFF_ERR ...; None where there is none."""
    return next((found for form in ERROR_FORMS if (found := find_column(form.format(column), available))), None)


def choose_labels(table: Any, besides: Mapping[str, str]) -> LabelColumns:
    """The labels of a table whose columns nobody named.

    Arguments:
        table: Rows of stars.
        besides: {column: what it is} of columns that are known to be something else, such as the ids.
    """
    left = {column: besides[column] for column in table.colnames if column in besides}
    labels: dict[str, str] = {}
    for column in table.colnames:
        if column in left:
            continue
        if why := _no_label(table[column], label_name(column)):
            left[column] = why
        elif label_name(column) in labels:
            left[column] = f"{label_name(column)} is there already"
        else:
            labels[label_name(column)] = column
    errors = {name: found for name, column in labels.items() if (found := error_column(column, table.colnames))}
    labels = {name: column for name, column in labels.items() if column not in errors.values()}
    return LabelColumns(labels, {name: column for name, column in errors.items() if name in labels}, left)


def _no_label(column: Any, name: str) -> str | None:
    """Why a column is no label; None if it is one."""
    if column.ndim > 1 or column.dtype.kind == "O":
        return "arrays"
    if column.dtype.kind not in "iuf":
        return "text" if column.dtype.kind in "US" else "no numbers"
    if not name:
        return "it has no name"
    if name in UNITS:
        return None
    if kind := next((kind for kind, pattern in KINDS if re.fullmatch(pattern, name)), None):
        return kind
    values, unit = np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan), str(column.unit or "")
    missing = float(is_missing(values, name, unit).mean()) if len(values) else 1.0
    if missing == 1 and not is_fill(values).all():
        low, high = plausible(name, unit)
        return f"no value from {low:g} to {high:g} {unit}".rstrip()
    if missing > MOST:
        return "no value" if missing == 1 else f"missing in {missing:.0%} of the rows"
    return None
