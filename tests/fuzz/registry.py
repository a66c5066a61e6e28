"""Kinds of random cases, one per module of ``generators``."""

from __future__ import annotations

import importlib
import pkgutil
import random
from pathlib import Path
from typing import Any, Protocol, cast

Case = dict[str, Any]
FOLDER = Path(__file__).with_name("generators")


class Generator(Protocol):
    """What a module of this package has."""

    SEEDS: list[Case]

    def generate(self, rng: random.Random) -> Case: ...

    def run(self, case: Case) -> None: ...


def generators() -> dict[str, Generator]:
    """Return the generators by the names of their modules."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)]) if not module.name.startswith("_"))
    return {name: cast(Generator, importlib.import_module(f"{__package__}.{FOLDER.name}.{name}")) for name in names}
