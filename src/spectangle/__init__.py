"""spectangle: latent spaces of stellar spectra that lose some labels and keep others, proven by probes."""

import sys

from spectangle.threads import let_threads_sleep
from spectangle.version import VERSION as __version__

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """``spectangle.load``, imported when it is used: commands that need no torch start without it."""
    if name == "load":
        if "torch" not in sys.modules:  # which reads once what waiting threads do
            let_threads_sleep()
        from spectangle.inference.load import load

        return load
    raise AttributeError(f"module 'spectangle' has no attribute '{name}'")
