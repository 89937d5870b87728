"""spectangle: latent spaces of stellar spectra that lose some labels and keep others, proven by probes."""

__version__ = "0.1.0"
