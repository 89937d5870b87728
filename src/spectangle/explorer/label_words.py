"""Labels in words: as in the figures, without TeX, which a plot in the browser does not set."""

from spectangle.figures.style import symbol

__all__ = ["plain_symbol", "short_title", "title"]

PLAIN = {"teff": "Teff", "logg": "log g", "alpha_fe": "[α/Fe]"}


def plain_symbol(label: str) -> str:
    """The label as astronomers write it; one that is not known keeps its name, in one line."""
    return PLAIN.get(label) or symbol(label).replace("\n", "")


def title(label: str, unit: str) -> str:
    """Symbol and unit."""
    return f"{plain_symbol(label)} [{unit}]" if unit else plain_symbol(label)


def short_title(label: str, unit: str, most: int) -> str:
    """Symbol and unit where there is little room: a long symbol loses its end, the unit stays."""
    over = len(title(label, unit)) - most
    words = plain_symbol(label)
    words = f"{words[: max(8, len(words) - over - 1)]}…" if over > 0 and len(words) > 8 else words
    return f"{words} [{unit}]" if unit else words
