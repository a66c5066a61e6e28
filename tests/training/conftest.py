"""Makes the scripts of training/ importable, which are no package and have names as general as "chat" and "tools"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def training_folder() -> Path:
    """The folder of the training scripts."""
    return ROOT / "training"


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of the released model and its card."""
    return ROOT / "cyllama" / "models"


@pytest.fixture(scope="module")
def script(training_folder: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Import a training script by name; all of them are forgotten after the test module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(training_folder))
        yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == training_folder:
            del sys.modules[name]


@pytest.fixture(scope="module")
def corpus(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module that generates the corpus."""
    return script("corpus")


@pytest.fixture(scope="module")
def dialogue(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module of the random source."""
    return script("dialogue")
