"""The measured engines, each run as ``python -m peers.engines.NAME`` in an environment of its own."""
