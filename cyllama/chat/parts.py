"""The content of messages: a text, or parts that are texts and images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CyllamaError, ImageError, MessageError
from ..images import Image

_IMAGES = ("image", "image_url")


def read_content(content: object, where: str) -> str | list[dict[str, Any]]:
    """Return the content of a message, checked.

    Args:
        content: A text; or parts, ``{"type": "text", "text": ...}``, ``{"type": "image", "image": ...}``, or OpenAI's
            ``image_url`` with a data URL.
        where: What errors call the message.

    Returns:
        The text, or parts of the first two types, in which images are decoded.

    Raises:
        MessageError: It is something else.
        ImageError: An image cannot be read.
        ConfigTypeError: An image is of no type that can be read.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise MessageError(f"the content of {where} is a str, not {type(content).__name__}: {content!r:.80}")
    return [_part(part, f"part {i} of {where}", where) for i, part in enumerate(content)]


def _part(part: object, place: str, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _IMAGES:
        return {"type": "image", "image": read_image(part, f"the image in {place}")}
    if kind != "text" or not isinstance(part, Mapping):
        raise MessageError(
            f"the content of {where} has a part of type {kind!r:.80}: only text and images can be read, "
            '{"type": "text", "text": ...} and {"type": "image", "image": ...}'
        )
    if not isinstance(part.get("text"), str):
        raise MessageError(f"the content of {where} has a part whose text is not a str: {part.get('text')!r:.80}")
    return {"type": "text", "text": part["text"]}


def read_image(part: Mapping[str, Any], name: str) -> Image:
    """Return the image of a part.

    Args:
        part: The part, of type "image" or "image_url".
        name: What errors call its image.

    Raises:
        MessageError: The part has no image.
        ImageError: It cannot be read.
        ConfigTypeError: It is of no type that can be read.
    """
    if part["type"] == "image":
        source = part.get("image")
        if source is None:
            raise MessageError(f'{name} is missing: expected {{"type": "image", "image": PATH, BYTES OR IMAGE}}')
        if isinstance(source, str) and not source.startswith("data:"):  # messages may come from strangers
            raise ImageError(
                f"{name} is the text {source!r:.80}, and texts of messages are not used as paths: pass Path(...) or "
                "'data:image/png;base64,...'"
            )
        return Image.load(source, name=name)
    address = part.get("image_url")
    url = address.get("url") if isinstance(address, Mapping) else address
    if url is None:
        raise MessageError(f'{name} has no address: expected {{"url": "data:image/png;base64,..."}} as its "image_url"')
    return Image.from_url(url, name=name)


def text_of(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return the texts among parts, as lines."""
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def images_of(content: str | Sequence[Mapping[str, Any]]) -> list[Image]:
    """Return the images of a content that :func:`read_content` returned, in their order."""
    return [] if isinstance(content, str) else [part["image"] for part in content if part["type"] == "image"]


def comparable(content: object) -> object:
    """Return what tells one content of a message from another: images are equal if their pixels are."""
    if not isinstance(content, (list, tuple)):
        return content
    return [_comparable_part(part) for part in content]


def _comparable_part(part: object) -> object:
    if not isinstance(part, Mapping) or part.get("type") not in _IMAGES:
        return part
    try:
        return "image", read_image(part, "the image").digest
    except CyllamaError:  # the model refuses it
        return "image", hashlib.sha256(repr(part).encode()).digest()
