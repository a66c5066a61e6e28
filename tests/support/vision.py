"""A model that reads images: the embedded one with a random projector, for which each image is other noise."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import PIL.Image

from cyllama.llama.llama_cpp import LlamaModel
from cyllama.models import TINY_CHAT

from .random_projector import n_image_tokens, write_random_projector

KIND = "llava"
N_TOKENS = n_image_tokens(KIND)  # of an image


def write_projector(path: Path) -> Path:
    """Write a projector for the embedded model."""
    with LlamaModel(str(TINY_CHAT)) as model:
        return write_random_projector(path, KIND, n_embd=model.n_embd)


def png(color: str, width: int = 40, height: int = 30) -> bytes:
    """Return the file of an image of one color."""
    buffer = BytesIO()
    PIL.Image.new("RGB", (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(color: str) -> str:
    """Return the same as a data URL."""
    return f"data:image/png;base64,{base64_of(color)}"


def base64_of(color: str) -> str:
    """Return the same as base64."""
    return base64.b64encode(png(color)).decode()
