"""The version of the package that is installed."""

from importlib import metadata

__all__ = ["VERSION"]

VERSION = metadata.version("spectangle")
