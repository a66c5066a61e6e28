"""What the tests of chats share: the embedded model, one with random weights, and text sampled under a grammar."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ..support.writing import matches, model, random_model, templates, write, write_randomly

__all__ = ["matches", "model", "random_model", "templates", "write", "write_randomly"]


@pytest.fixture
def as_json() -> Callable[[object], str]:
    return json.dumps
