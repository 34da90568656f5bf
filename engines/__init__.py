"""The work of ``spine``: a library without a terminal."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("spinecli")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"
