"""A hub on this machine, and an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from cyllama.models import TINY_CHAT

from ..support.hub_server import Hub, Repository, running

ENDPOINT = constants.ENDPOINT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of ``huggingface_hub``, in this process and in those that a test starts; there is no log-in."""
    home = tmp_path / "home"
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return home / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with "ada/tiny", which has the embedded model in two quantizations, by their names."""
    tiny = TINY_CHAT.read_bytes()
    files = {"README.md": b"# Tiny", "mmproj-tiny-Q8_0.gguf": b"x", "tiny-q4_k_m.gguf": tiny}
    files["tiny-Q8_0.gguf"] = tiny + bytes(32)  # another content, of the same model
    with running(Hub()) as hub:
        hub.repositories["ada/tiny"] = Repository(files)
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
