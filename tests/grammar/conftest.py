"""What the tests of grammars share: the embedded model, one with random weights, and text sampled under a grammar."""

from __future__ import annotations

from ..support.writing import matches, model, random_model, templates, write, write_randomly

__all__ = ["matches", "model", "random_model", "templates", "write", "write_randomly"]
