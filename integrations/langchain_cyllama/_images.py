"""Images in content blocks of any provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyllama import Image, MessageError

_KINDS = ("image", "image_url", "input_image", "media", None)


def image_of(block: Any, name: str) -> Image | None:
    """Return the image of a content block; `None` if the block is something else, or has only the id of a file.

    Args:
        block: The block.
        name: What errors call the image.

    Raises:
        MessageError: The image is at an address, which is not fetched.
        ImageError: It cannot be read.
    """
    if not isinstance(block, Mapping) or block.get("type") not in _KINDS:
        return None
    if isinstance(block.get("image"), Image):
        return block["image"]
    data, address = _data_of(block), _address_of(block)
    if isinstance(data, (bytes, bytearray)):
        return Image.load(bytes(data), name=name)
    if isinstance(data, str):
        return Image.from_base64(data, name=name)
    if not isinstance(address, str):
        return None
    if not address[:5].lower() == "data:":
        raise MessageError(
            f"{name} is at {address!r:.80}, and no address is fetched: download it, and pass its data as "
            '{"type": "image", "base64": ..., "mime_type": "image/png"}'
        )
    return Image.from_url(address, name=name)


def _data_of(block: Mapping[str, Any]) -> Any:
    """Return the bytes or the base64 of an image."""
    kind, inner = block.get("type"), block.get("image")
    if kind is None:  # of Amazon's API
        source = inner.get("source") if isinstance(inner, Mapping) else None
        return source.get("bytes") if isinstance(source, Mapping) else None
    if kind == "media" and not str(block.get("mime_type", "")).startswith("image/"):
        return None
    source = block.get("source")
    if isinstance(source, Mapping):
        return source.get("data")
    return block.get("base64") or block.get("data")


def _address_of(block: Mapping[str, Any]) -> Any:
    if block.get("type") not in ("image", "image_url", "input_image"):
        return None
    source = block.get("source")
    if isinstance(source, Mapping):
        return source.get("url")
    address = block.get("image_url") or block.get("url")
    return address.get("url") if isinstance(address, Mapping) else address
