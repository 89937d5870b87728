"""spectangle: latent spaces of stellar spectra that lose some labels and keep others, proven by probes."""

from spectangle.version import VERSION as __version__

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """``spectangle.load``, imported when it is used: commands that need no torch start without it."""
    if name == "load":
        from spectangle.inference.load import load

        return load
    raise AttributeError(f"module 'spectangle' has no attribute '{name}'")
