"""Images of requests: decoded outside of the event loop, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from cyllama import Image, ImageError
from cyllama.images import MAX_PIXELS

from .errors import ApiError
from .models import LoadedModel

DECODERS = 2
"""How many images are decoded at the same time: each may take some hundred MB meanwhile."""

_KINDS = ("image_url", "image")


class ReadMessages(NamedTuple):
    """Messages whose images were read.

    Attributes:
        messages: The messages, as the model is given them.
        compared: The same with digests in the place of images: what sessions are found by. It is JSON.
    """

    messages: Sequence[Mapping[str, Any]]
    compared: Sequence[Mapping[str, Any]]


class ImageReader:
    """Reads the images of requests.

    Args:
        max_mp: Most megapixels of all images of a request, before they are scaled down.
    """

    def __init__(self, max_mp: float) -> None:
        self._max_mp = max_mp
        # Those that conversations hold, by digests: what many of them show is in memory once.
        self._held: WeakValueDictionary[str, Image] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(DECODERS, "cyllama-images")

    async def read(self, messages: Sequence[Mapping[str, Any]], model: LoadedModel) -> ReadMessages:
        """Return messages with their images.

        Args:
            messages: Messages, whose images are data URLs.
            model: The model that they are for.

        Raises:
            ApiError: The model reads no images.
            ImageError: An image cannot be read, or is too large.
        """
        if not any(map(_has_image, messages)):
            return ReadMessages(messages, messages)
        if model.llm.model_config.projector is None:
            raise ApiError(
                400,
                f"the model {model.name!r} reads no images: the server loads it without a projector "
                f"(--option {model.name}.projector=FILE)",
                code="unsupported_model",
                param="messages",
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, messages)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _decode(self, messages: Sequence[Mapping[str, Any]]) -> ReadMessages:
        limit = int(self._max_mp * 1e6)
        known: dict[str, Image] = {}
        read: list[Mapping[str, Any]] = []
        compared: list[Mapping[str, Any]] = []
        for i, message in enumerate(messages):
            if not _has_image(message):
                read.append(message)
                compared.append(message)
                continue
            parts = list(message["content"])
            shown = list(parts)
            for j, part in enumerate(parts):
                if _is_image(part):
                    image = _load(part, f"the image in part {j} of message {i}", known, limit)
                    parts[j] = {"type": "image", "image": self._held.setdefault(image.digest, image)}
                    shown[j] = {"type": "digest", "digest": image.digest}
            read.append({**message, "content": parts})
            compared.append({**message, "content": shown})
        return ReadMessages(read, compared)


def _has_image(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(map(_is_image, content))


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _KINDS


def _load(part: Mapping[str, Any], name: str, known: dict[str, Image], limit: int) -> Image:
    """Return the image of a part.

    Args:
        part: The part.
        name: What errors call the image.
        known: Images that were decoded before, by their addresses. It is added.
        limit: Most pixels of all images, before they are scaled down. They are counted before they are decoded.

    Raises:
        ImageError: It cannot be read, or is too large.
    """
    address = part.get(part["type"])
    url = address.get("url") if isinstance(address, dict) else address
    if not isinstance(url, str):
        raise ImageError(f"{name}: expected a data URL, 'data:image/png;base64,...', not {url!r:.80}")
    if url not in known:
        used = sum(image.decoded_pixels for image in known.values())
        if used >= limit:
            raise ImageError(
                f"the images of a request may have {limit / 1e6:g} megapixels in all, and those before {name} have "
                f"{used / 1e6:g}: scale them down"
            )
        known[url] = Image.from_url(url, max_bytes=len(url), max_pixels=min(MAX_PIXELS, limit - used), name=name)
    return known[url]
