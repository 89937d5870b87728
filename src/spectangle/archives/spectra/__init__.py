"""Spectra on their way to a survey: files of one star each, and chunks of many, on the grid that is asked for."""
