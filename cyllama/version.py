"""The version that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cyllama")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0.0.0"
