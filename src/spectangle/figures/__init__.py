"""Figures: arrays in, matplotlib Figure out; vector PDF and PNG, colours that the colour-blind can tell apart."""

from spectangle.figures.latent import frontier_figure, information_figure, mutual_information, pareto_front
from spectangle.figures.predictions import diagram_axes, diagrams_figure, noise_residual_figure, prediction_figure
from spectangle.figures.reconstruction import reconstruction_figure
from spectangle.figures.style import axis_title, data_uri, minus, save, symbol
from spectangle.figures.survey_figures import diagram_figure, label_figure, noise_figure, spectra_figure
from spectangle.figures.tsne import map_figure, neighbour_r2, plane

__all__ = [
    "axis_title",
    "data_uri",
    "diagram_axes",
    "diagram_figure",
    "diagrams_figure",
    "frontier_figure",
    "information_figure",
    "label_figure",
    "map_figure",
    "minus",
    "mutual_information",
    "neighbour_r2",
    "noise_figure",
    "noise_residual_figure",
    "pareto_front",
    "plane",
    "prediction_figure",
    "reconstruction_figure",
    "save",
    "spectra_figure",
    "symbol",
]
