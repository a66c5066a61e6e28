"""The files that the tests of training compare."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def training_folder() -> Path:
    """The folder of the training package."""
    return ROOT / "training"


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of the released model and its card."""
    return ROOT / "cyllama" / "models"
