"""Every public name has a place on the pages of the API, and these show nothing that does not exist."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from typing import Any

import cyllama
import cyllama.compat
import cyllama.errors
import cyllama_server
import langchain_cyllama
import ray_cyllama

from ..support.pages import DOCS

SHOWN = [path for page in (DOCS / "api").glob("*.md") for path in re.findall(r"^::: (\S+)", page.read_text(), re.M)]


def test_every_public_name_is_shown_once():
    public = {f"cyllama.{name}" for name in cyllama.__all__}
    public |= {f"langchain_cyllama.{name}" for name in langchain_cyllama.__all__}
    public |= {f"cyllama.compat.{name}" for name in cyllama.compat.__all__}
    public |= {f"cyllama_server.{name}" for name in cyllama_server.__all__}
    public |= {f"ray_cyllama.{name}" for name in ray_cyllama.__all__}
    errors = {name for name, value in vars(cyllama.errors).items() if isinstance(value, type)}
    assert sorted(SHOWN) == sorted(public | {f"cyllama.{name}" for name in errors})


def test_what_is_shown_exists():
    def find(path: str) -> Any:
        module, *names = path.split(".")
        return reduce(getattr, names, import_module(module))

    without_ray = [path for path in SHOWN if not path.startswith("ray_cyllama.")]  # Ray may not be installed
    assert [path for path in without_ray if find(path) is None] == []
