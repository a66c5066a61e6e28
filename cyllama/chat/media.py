"""Images in messages, kept in their places while a template renders text."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..control_text import IMAGE_MARK, IMAGE_SHOWN, RenderedChat
from ..errors import ChatTemplateError
from ..images import Image
from .plan import ChatPlan


class PlacedImages:
    """The images of messages, and messages that have a word in the place of each.

    The words have 128 random bits: no other text of the messages has one. Parts are joined as llama.cpp joins them:
    with a newline between two texts, and none beside an image.

    Args:
        messages: Messages that are checked.

    Attributes:
        messages: The same without images.
    """

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        self._images: list[tuple[Image, int]] = []  # with the index of the message
        self._word = f"cyllamaimage{secrets.token_hex(16)}n"
        self.messages = [self._placed(message, i) for i, message in enumerate(messages)]

    def _placed(self, message: dict[str, Any], index: int) -> dict[str, Any]:
        content = message["content"]
        if isinstance(content, str) or all(part["type"] == "text" for part in content):
            return message
        text, beside_image = "", True
        for part in content:
            if part["type"] == "image":
                text += f"{self._word}{len(self._images)}x"
                self._images.append((part["image"], index))
                beside_image = True
            else:
                text += part["text"] if beside_image or not text else f"\n{part['text']}"
                beside_image = False
        return {**message, "content": text}

    def in_prompt(self, prompt: RenderedChat) -> RenderedChat:
        """Return a prompt with the images in the places of their words.

        Raises:
            ChatTemplateError: The template has left one out.
        """
        if not self._images:
            return prompt
        pattern, found = re.compile(rf"{self._word}(\d+)x"), set[int]()

        def put(match: re.Match[str]) -> str:
            found.add(int(match[1]))
            return f"{IMAGE_MARK}{self._images[int(match[1])][0].digest}{IMAGE_MARK}"

        marked = pattern.sub(put, prompt.marked)
        lost = [index for i, (_, index) in enumerate(self._images) if i not in found]
        if lost:
            raise ChatTemplateError(
                f"the chat template leaves out the image of message {lost[0]}: put it into another message, such "
                "as the user's last one"
            )
        images = {image.digest: image for image, _ in self._images}
        return RenderedChat(pattern.sub(IMAGE_SHOWN, prompt), marked, images)

    def in_plan(self, plan: ChatPlan) -> ChatPlan:
        """Return a plan whose prompt has the images.

        Raises:
            ChatTemplateError: The template has left one out.
        """
        assert isinstance(plan.prompt, RenderedChat)
        return replace(plan, prompt=self.in_prompt(plan.prompt)) if self._images else plan
