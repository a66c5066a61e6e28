"""Types of the arguments that calls of :class:`LLM` and :class:`Session` share, so that each overload is one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from .chat import MessageLike
from .options import AttemptOptions, ChatOptions, TextOptions

if TYPE_CHECKING:
    from .images import Image

#: Text, the token ids of one, or texts and images in a list.
PromptLike: TypeAlias = "str | Sequence[int] | Sequence[str | Image]"
#: The whole history of a chat: dicts in OpenAI's format, or :class:`Message`.
MessagesLike: TypeAlias = Sequence[MessageLike]
#: Called with each chunk of text.
OnToken: TypeAlias = Callable[[str], object] | None
#: Path of a file.
PathLike: TypeAlias = str | os.PathLike[str]
#: Called while a model is loaded, with 0.0 to 1.0; returning ``False`` stops it.
Progress: TypeAlias = Callable[[float], bool | None]


class StreamCall(TextOptions, total=False):
    """Options of a call that continues a text and returns a stream."""

    session: str | None
    on_token: OnToken


class AttemptCall(AttemptOptions, StreamCall, total=False):
    """Options of a call that continues a text and waits for the whole of it."""


class TextCall(AttemptCall, total=False):
    """The same where the call could return a stream instead."""

    stream: Literal[False]


class ChatStreamCall(ChatOptions, total=False):
    """Options of a call that answers a chat and returns a stream."""

    session: str | None


class ChatCall(ChatStreamCall, total=False):
    """Options of a call that answers a chat and waits for the whole answer."""

    stream: Literal[False]


class SessionStreamCall(TextOptions, total=False):
    """Options of a call that continues a session's text and returns a stream."""

    on_token: OnToken


class SessionCall(SessionStreamCall, total=False):
    """Options of a call that continues a session's text and waits for the whole of it."""

    stream: Literal[False]


class SessionChatCall(ChatOptions, total=False):
    """Options of a call that answers a session's chat and waits for the whole answer."""

    stream: Literal[False]
