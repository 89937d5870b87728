"""Gaia RVS spectra: bulk files and DataLink, in all their forms, on disk or downloaded."""
