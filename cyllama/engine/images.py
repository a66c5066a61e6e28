"""Images in prompts: token ids below zero, one for each of their cells."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..images import Image


_CELL_BITS = 20  # more cells than any context has


@dataclass(frozen=True, eq=False)
class PromptImage:
    """An image, and the tokens that it is in a prompt.

    The id of each of its cells is made from the digests of its pixels and of the projector. So token ids are equal
    where images are, and all that compares token ids works with images as well.

    Attributes:
        image: The image.
        key: What tells it from other images, and from the same one with another projector.
        tokens: Its tokens: those that the model wants around an image, and ids below zero for its cells.
        chunks: Numbers of cells that belong together, in order.
        whole: Whether the cells of a chunk attend to each other in both directions: they are evaluated in one pass.
    """

    image: Image
    key: int
    tokens: list[int]
    chunks: tuple[int, ...]
    whole: bool

    @classmethod
    def of(cls, image: Image, projector: str, parts: Sequence[list[int] | int], *, whole: bool) -> PromptImage:
        """Return what an image is in a prompt.

        Args:
            image: The image.
            projector: What tells the projector from others.
            parts: Its tokens in order: lists of ids, and numbers of cells.
            whole: Whether cells attend to later ones.
        """
        digest = hashlib.sha256(f"{projector}:{image.digest}".encode()).digest()
        key = int.from_bytes(digest[:16], "big")
        tokens: list[int] = []
        chunks: list[int] = []
        for part in parts:
            if isinstance(part, int):
                first = sum(chunks)
                tokens += [token_of(key, cell) for cell in range(first, first + part)]
                chunks.append(part)
            else:
                tokens += part
        return cls(image, key, tokens, tuple(chunks), whole)


def token_of(key: int, cell: int) -> int:
    """Return the token id of a cell of an image, which is below zero."""
    return -1 - (key << _CELL_BITS | cell)


def key_and_cell(token: int) -> tuple[int, int]:
    """Return which image a token id below zero belongs to, and which cell of it."""
    number = -1 - token
    return number >> _CELL_BITS, number & (1 << _CELL_BITS) - 1


def rekeyed(tokens: Sequence[int], keys: Mapping[int, int]) -> list[int]:
    """Return token ids with other keys of images.

    >>> rekeyed([7, token_of(1, 0), token_of(1, 1)], {1: 2}) == [7, token_of(2, 0), token_of(2, 1)]
    True

    Raises:
        KeyError: A token is of an image that is not among the keys.
    """
    result = list(tokens)
    for i, token in enumerate(tokens):
        if token < 0:
            key, cell = key_and_cell(token)
            result[i] = token_of(keys[key], cell)
    return result


def is_cell(token: int, images: Sequence[PromptImage]) -> bool:
    """Return whether a token id below zero is of a cell of one of the images, whose key is its place among them."""
    number, cell = key_and_cell(token)
    return number < len(images) and cell < sum(images[number].chunks)


def texts_only(tokens: Sequence[int]) -> list[int]:
    """Return the token ids without those of images, for what knows tokens of the vocabulary only."""
    return [token for token in tokens if token >= 0]


def used_images(tokens: Sequence[int], images: Mapping[int, PromptImage]) -> dict[int, PromptImage]:
    """Return those of some images, by key, that have cells in a list of tokens."""
    keys = {key_and_cell(token)[0] for token in tokens if token < 0}
    return {key: image for key, image in images.items() if key in keys}


class ImageRun(NamedTuple):
    """Cells of one chunk of an image that are next in a prompt.

    Attributes:
        image: The image.
        first: The first of these cells.
        n: How many there are.
    """

    image: PromptImage
    first: int
    n: int


class ImageRuns:
    """Where the cells of images are in a prompt."""

    def __init__(self, prompt: Sequence[int], images: Mapping[int, PromptImage]) -> None:
        self._images = images
        self._prompt = prompt
        cells = [i for i, token in enumerate(prompt) if token < 0]
        self._starts = [i for i in cells if i == 0 or prompt[i - 1] >= 0]

    def at(self, place: int) -> ImageRun | None:
        """Return the cells from a place of the prompt on to the end of their chunk; ``None`` for a token of a text."""
        if place >= len(self._prompt) or self._prompt[place] >= 0:
            return None
        key, first = key_and_cell(self._prompt[place])
        image = self._images[key]
        ends = list(accumulate(image.chunks))
        return ImageRun(image, first, ends[bisect_right(ends, first)] - first)

    def next_start(self, place: int) -> int | None:
        """Return where the next cells after a place begin, ``None`` if no cells follow."""
        i = bisect_right(self._starts, place)
        return self._starts[i] if i < len(self._starts) else None

    def after(self, place: int) -> list[PromptImage]:
        """Return the images that have cells from a place on, in order, each one once."""
        keys = dict.fromkeys(key_and_cell(token)[0] for token in self._prompt[place:] if token < 0)
        return [self._images[key] for key in keys]
