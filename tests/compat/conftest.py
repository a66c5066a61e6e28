"""One `Llama` of the embedded model for all tests of the facade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama.compat import Llama
from cyllama.models import TINY_CHAT


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama(str(TINY_CHAT), n_threads=1) as llama:
        yield llama
