"""What a model generates, as a message: at once, or piece by piece while it is generated."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..response import TokenLogprob
from .messages import Function, Message, ToolCall

#: What reads an answer, or its beginning: content, reasoning, and id, name and arguments of tool calls. It raises
#: RuntimeError for what does not fit its format.
Read = Callable[[str, bool], tuple[str, str, list[tuple[str, str, str]]]]


def as_content(text: str, _is_partial: bool) -> tuple[str, str, list[tuple[str, str, str]]]:
    """Read an answer that is content only."""
    return text, "", []


_MAY_BE_REPLACED = ' \t\r\n"}]'  # what parsers close arguments with that are not complete yet
# A text is read again when it has grown by one character in so many. Reading 1,000 of plain text takes 6 microseconds.
_PLAIN, _STRUCTURED = 8192, 256


@dataclass(frozen=True)
class FunctionDelta:
    """A piece of a function call.

    Attributes:
        name: Its name, in the first piece only.
        arguments: The next part of the arguments.
    """

    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: Which call of the message it belongs to.
        id: Its id, in the first piece only.
        function: The piece of the function call.
        type: "function", in the first piece only.
    """

    index: int
    id: str | None = None
    function: FunctionDelta = field(default_factory=FunctionDelta)
    type: str | None = None


@dataclass(frozen=True)
class ChatDelta:
    """A piece of a message. All of them together are the message. As a ``str``, it is its content.

    >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
    >>> deltas = list(llm.chat(messages, stream=True))
    >>> "".join(map(str, deltas))
    'The capital of France is Paris.'

    Attributes:
        content: The next part of the text.
        reasoning_content: The next part of the reasoning.
        tool_calls: Pieces of tool calls.
        logprobs: The tokens whose text became certain with it, where ``logprobs`` were asked for.
    """

    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    def __bool__(self) -> bool:
        """Whether it adds anything."""
        return bool(self.content or self.reasoning_content or self.tool_calls or self.logprobs)

    def __str__(self) -> str:
        """Return its text, so that ``print(delta, end="")`` shows the answer."""
        return self.content


@dataclass
class _Call:
    id: str
    name: str
    arguments: str = ""


class MessageBuilder:
    """Adds up deltas."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning_content = ""
        self.calls: list[_Call] = []

    def add(self, delta: ChatDelta) -> None:
        """Append a delta."""
        self.content += delta.content
        self.reasoning_content += delta.reasoning_content
        for piece in delta.tool_calls:
            if piece.index == len(self.calls):
                self.calls.append(_Call(piece.id or "", piece.function.name or ""))
            self.calls[piece.index].arguments += piece.function.arguments

    @property
    def message(self) -> Message:
        """The message so far."""
        calls = [
            ToolCall(id=call.id, function=Function(name=call.name, arguments=call.arguments)) for call in self.calls
        ]
        return Message(
            role="assistant", content=self.content, reasoning_content=self.reasoning_content, tool_calls=calls
        )


def add_up(deltas: Iterable[ChatDelta]) -> Message:
    """Return the message that deltas add up to."""
    builder = MessageBuilder()
    for delta in deltas:
        builder.add(delta)
    return builder.message


class ChatParser:
    """Reads one answer while it is generated.

    What it has returned it never takes back: a part of the text that may turn out to be something else is held back
    until it is known. Text that does not fit the format becomes content::

        parser = plan.parser()
        for text in stream:
            delta = parser.push(text)
        last = parser.finish()
        message = parser.message

    Args:
        read: Reads an answer, whole or its beginning.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._text = ""
        self._read_until = 0
        self._plain = True
        self._built = MessageBuilder()

    @property
    def text(self) -> str:
        """Everything that was generated so far, as it was."""
        return self._text

    @property
    def message(self) -> Message:
        """The sum of all deltas so far; after :meth:`finish` the message."""
        return self._built.message

    def push(self, text: str) -> ChatDelta:
        """Add what was generated next; return what it adds to the message, which may be nothing yet."""
        self._text += text
        # Reading starts at the beginning every time: for long texts not after every token.
        n = len(self._text)
        if n - self._read_until <= n // (_PLAIN if self._plain else _STRUCTURED):
            return ChatDelta()
        self._read_until = len(self._text)
        try:
            content, reasoning, calls = self._read(self._text, True)
        except (RuntimeError, ValueError):
            return ChatDelta()
        self._plain = not (reasoning or calls)
        return self._advance(content, reasoning, calls, final=False)

    def finish(self) -> ChatDelta:
        """End the answer; return what was held back."""
        try:
            content, reasoning, calls = self._read(self._text, False)
        except (RuntimeError, ValueError):
            content, reasoning, calls = self._text, "", []
        return self._advance(content, reasoning, calls, final=True)

    def _advance(self, content: str, reasoning: str, calls: list[tuple[str, str, str]], *, final: bool) -> ChatDelta:
        built = self._built
        pieces: list[ToolCallDelta] = []
        for i, (call_id, name, arguments) in enumerate(calls):
            if i < len(built.calls):
                if name != built.calls[i].name:
                    break
            elif not final and i == len(calls) - 1 and len(arguments) < 2:
                break  # its name may not be complete
            if not final:
                arguments = arguments.rstrip(_MAY_BE_REPLACED)
            known = built.calls[i].arguments if i < len(built.calls) else ""
            added = _added(known, arguments)
            if i >= len(built.calls):
                pieces.append(ToolCallDelta(i, self._id(call_id), FunctionDelta(name, added), "function"))
            elif added:
                pieces.append(ToolCallDelta(i, function=FunctionDelta(None, added)))
        delta = ChatDelta(_added(built.content, content), _added(built.reasoning_content, reasoning), tuple(pieces))
        built.add(delta)
        return delta

    def _id(self, given: str) -> str:
        """Return the model's own id, or a new one: nine letters and digits, as some templates demand."""
        taken = {call.id for call in self._built.calls}
        return given if given and given not in taken else uuid.uuid4().hex[:9]


def _added(known: str, now: str) -> str:
    return now[len(known) :] if now.startswith(known) else ""
