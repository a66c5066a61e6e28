"""What the tests of grammars share: the embedded model, one with random weights, and text sampled under a grammar."""

from __future__ import annotations

from ..writing import model, random_model, templates, write, write_randomly

__all__ = ["model", "random_model", "templates", "write", "write_randomly"]
