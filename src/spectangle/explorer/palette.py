"""Colours of the page: quiet for what was observed, one warm colour for what the user changed."""

__all__ = ["AXIS", "CHANGED", "GREY", "GRID", "INK", "OBSERVED", "RECONSTRUCTED", "UNKNOWN"]

INK, GREY, AXIS, GRID = "#1d2733", "#8a94a0", "#b8c0c9", "#e8ecf0"
UNKNOWN = "#c6cdd4"  # no colour of the maps: what the catalogue does not know of a star
OBSERVED, RECONSTRUCTED, CHANGED = "#a3aeb9", "#2563a6", "#d9480f"
