"""The messages of a chat, as OpenAI's API has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ..errors import MessageError, PromptError
from ..images import Image
from .parts import images_of, read_content, text_of

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_ARGUMENT_DEPTH = 100


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Function(_Part):
    """The name and the arguments of a :class:`ToolCall`.

    >>> call = Function(name="weather", arguments='{"city": "Paris"}')
    >>> json.loads(call.arguments)["city"]
    'Paris'

    Attributes:
        name: Name of the tool.
        arguments: JSON text of an object; incomplete if the answer was cut off.
    """

    name: str
    arguments: str = "{}"


class ToolCall(_Part):
    """A call of a tool that the model asks for.

    >>> call = ToolCall(id="1", function=Function(name="weather", arguments='{"city": "Paris"}'))
    >>> call.function.name
    'weather'
    >>> result = Message(role="tool", content="18 degrees", tool_call_id=call.id)

    Attributes:
        id: The id that the message with the tool's result has as its ``tool_call_id``.
        type: Always "function".
        function: Name and arguments.
    """

    id: str
    type: Literal["function"] = "function"
    function: Function


class Message(_Part):
    """One message of a chat.

    >>> Message(role="user", content="Hello").to_dict()
    {'role': 'user', 'content': 'Hello'}

    Attributes:
        role: Author of the message: "system", "developer", "user", "assistant" or "tool".
        content: The text. Parts are accepted: ``{"type": "text", "text": ...}``, which become its lines, and images,
            ``{"type": "image", "image": ...}``, which are in :attr:`images`.
        tool_calls: The tools that the assistant calls.
        reasoning_content: The assistant's reasoning before it answered.
        name: Name of a tool, or of a participant.
        tool_call_id: Id of the call that a tool's result belongs to.

    Raises:
        MessageError: A field is missing, unknown or has the wrong type.
    """

    role: Role
    content: str = ""
    tool_calls: list[ToolCall] = Field(default_factory=list)
    reasoning_content: str = ""
    name: str | None = None
    tool_call_id: str | None = None

    _parts: list[dict[str, Any]] = PrivateAttr(default_factory=list)  # of a content with images

    def __init__(self, /, **fields: Any) -> None:
        """Raise :class:`MessageError` for what is not a message."""
        content = fields.get("content", "")
        if content is None or isinstance(content, (list, tuple)):
            content = read_content(content, "the message")
            fields["content"] = content if isinstance(content, str) else text_of(content)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise MessageError(f"{place}: {first['msg']}, not {first['input']!r:.80}") from None
        if isinstance(content, list) and images_of(content):
            self._parts = content

    @property
    def images(self) -> list[Image]:
        """The images of its content, in their order.

        >>> red = Image(bytes([255, 0, 0]), width=1, height=1)
        >>> parts = [{"type": "image", "image": red}, {"type": "text", "text": "A color"}]
        >>> message = Message(role="user", content=parts)
        >>> message.content, message.images
        ('A color', [Image(width=1, height=1)])
        """
        return images_of(self._parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the message as a dict in OpenAI's format; :meth:`from_dict` reads it. Images are data URLs in it.

        >>> Message(role="user", content="Hello").to_dict()
        {'role': 'user', 'content': 'Hello'}
        """
        result = self._as_dict()
        if self._parts:
            result["content"] = [_openai_part(part) for part in self._parts]
        return result

    def _as_dict(self) -> dict[str, Any]:
        """Return the message as a dict in which images are values."""
        result: dict[str, Any] = {"role": self.role, "content": self._parts or self.content}
        if self.tool_calls:
            result["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        for name in ("reasoning_content", "name", "tool_call_id"):
            if value := getattr(self, name):
                result[name] = value
        return result

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> Message:
        """Return the message of a dict in OpenAI's format.

        >>> Message.from_dict({"role": "user", "content": "Hello"}).content
        'Hello'

        Args:
            message: The dict. Its content may be a list of parts, texts and images.

        Raises:
            MessageError: It is not a valid message.
        """
        return cls(**_normalize(message, "the message"))


def _openai_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    return {"type": "image_url", "image_url": {"url": part["image"].to_data_url()}}


class HasMessage(Protocol):
    """What stands for a message, as :class:`ChatResponse` does."""

    message: Message


#: What is accepted as a message.
MessageLike: TypeAlias = Message | HasMessage | BaseModel | Mapping[str, Any]


def as_mapping(message: object) -> object:
    """Return a message as a dict: a :class:`Message`, what has one, or an object of the package `openai`.

    What is none of these is returned as it is.
    """
    if isinstance(of_answer := getattr(message, "message", None), Message):
        message = of_answer
    if isinstance(message, Message):
        return message._as_dict()
    return (
        message.model_dump(exclude_none=True)
        if isinstance(message, BaseModel) and hasattr(message, "role")
        else message
    )


def check_messages(messages: Sequence[MessageLike]) -> list[dict[str, Any]]:
    """Return messages as dicts in OpenAI's format, as templates take them.

    Tool results without an id belong to the calls in their order; calls without an id get one.

    Raises:
        MessageError: There are no messages, or a role does not exist, or content is missing or neither text nor image,
            or a tool's result does not belong to a call.
        ImageError: An image cannot be read.
        PromptError: A text has lone surrogates.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise MessageError(f"expected a list of messages, not {type(messages).__name__}: {messages!r:.80}")
    if not messages:
        raise MessageError("there are no messages: pass at least one, such as {'role': 'user', 'content': 'Hello'}")
    checked = []
    unanswered: list[str] = []
    n_calls = 0
    for i, message in enumerate(messages):
        where = f"message {i}"
        result = _normalize(message, where)
        if result["role"] == "tool":
            _assign_result(result, unanswered, where)
        elif result["role"] == "assistant":
            unanswered = []
            for call in result.get("tool_calls", ()):
                n_calls += 1
                call["id"] = call["id"] or f"call{n_calls:05}"
                unanswered.append(call["id"])
        _check_text(result, where)
        checked.append(result)
    return checked


def _assign_result(message: dict[str, Any], unanswered: list[str], where: str) -> None:
    wanted = message.get("tool_call_id")
    if not unanswered:
        raise MessageError(f"{where} is a tool's result, but no tool call before it waits for one")
    if wanted is None:
        message["tool_call_id"] = wanted = unanswered[0]
    if wanted not in unanswered:
        raise MessageError(
            f"{where} is the result of the call {wanted!r:.80}, but those that wait for one are {unanswered!r:.200}"
        )
    unanswered.remove(wanted)


def _normalize(message: object, where: str) -> dict[str, Any]:
    message = as_mapping(message)
    if not isinstance(message, Mapping):
        raise MessageError(
            f"{where} has to be a dict with 'role' and 'content', not {type(message).__name__}: {message!r:.80}"
        )
    role = message.get("role")
    if role not in ROLES:
        raise MessageError(f"{where} has the unknown role {role!r:.80}: there are {', '.join(ROLES)}")
    result: dict[str, Any] = {"role": role}
    calls = message.get("tool_calls")
    if calls and role != "assistant":
        raise MessageError(f"{where} has tool calls, which only an assistant makes, not a {role}")
    content = message.get("content")
    if content is None and (not calls or role != "assistant"):
        raise MessageError(f"{where} has no content")
    result["content"] = read_content(content, where)
    if role == "assistant" and images_of(result["content"]):
        raise MessageError(f"{where} has an image, which only a user, a tool or the system shows, not an assistant")
    if calls:
        if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
            raise MessageError(
                f"the tool calls of {where} have to be a list, not {type(calls).__name__}: {calls!r:.80}"
            )
        result["tool_calls"] = [_tool_call(call, f"tool call {i} of {where}") for i, call in enumerate(calls)]
    for key in ("reasoning_content", "name", "tool_call_id"):
        value = message.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise MessageError(f"the {key!r} of {where} is a str, not {type(value).__name__}: {value!r:.80}")
        if value:
            result[key] = value
    return result


def _tool_call(call: object, where: str) -> dict[str, Any]:
    if isinstance(call, ToolCall):
        call = call.model_dump()
    if not isinstance(call, Mapping):
        raise MessageError(f"{where} has to be a dict, not {type(call).__name__}: {call!r:.80}")
    if call.get("type", "function") != "function":
        raise MessageError(f"{where} is of type {call.get('type')!r:.80}: there is only 'function'")
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise MessageError(f"{where} has no function, which is a dict with 'name' and 'arguments': {function!r:.80}")
    name, call_id = function.get("name"), call.get("id") or ""
    if not isinstance(name, str) or not name:
        raise MessageError(f"the function of {where} has no name")
    if not isinstance(call_id, str):
        raise MessageError(f"the id of {where} is a str, not {type(call_id).__name__}: {call_id!r:.80}")
    arguments = _arguments(function.get("arguments"), where)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(arguments: object, where: str) -> str:
    """Return arguments as JSON text of an object: templates read them."""
    try:
        if arguments is None or arguments == "":
            return "{}"
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        parsed = json.loads(arguments)
        if isinstance(parsed, dict) and _depth(arguments) <= MAX_ARGUMENT_DEPTH:
            return arguments
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"the arguments of {where} are no JSON: {error}: {arguments!r:.80}") from error
    raise MessageError(f"the arguments of {where} are no JSON object: {arguments!r:.80}")


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _check_text(value: object, where: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"{where} has a lone surrogate at index {error.start} of a text") from error
    elif isinstance(value, dict):
        for item in value.values():
            _check_text(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, where)
