"""Where models come from, and tiny-chat, the one that is embedded."""

from __future__ import annotations

import os
from pathlib import Path

TINY_CHAT = Path(__file__).parent / "tiny-chat.gguf"


def resolve_model_path(model_path: str | os.PathLike[str] | None) -> Path:
    """Return the file to load: ``None`` stands for the embedded model, ``~`` for the home folder."""
    return TINY_CHAT if model_path is None else Path(model_path).expanduser()
