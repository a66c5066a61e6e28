"""From the answer of a model to the value of a schema: a complete value, or an error."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from langchain_core.output_parsers.transform import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableAssign, RunnableLambda, RunnableMap
from langchain_core.utils.json import parse_partial_json
from typing_extensions import override

from cyllama import ConfigError

from ._schemas import OutputSchema, read_schema
from .errors import OutputParsingError

_SHOWN = 200  # characters of an answer in a message
_NOTHING = object()  # not None, which is a value: that of `null`

#: Parses JSON text as a value. It raises a ValueError for text that is not JSON, or does not fit its schema.
Load = Callable[[str], Any]


class AnswerParser(BaseTransformOutputParser[Any]):
    """Parses a complete answer as a value, and refuses an incomplete one.

    LangChain's own parsers close the open brackets of an answer that `max_tokens` or a stop string has cut. Then half a
    number is taken for a whole number.

    Args:
        load: Parses the JSON text.
        tool: The tool whose arguments are the JSON text; `None` if the answer itself is the JSON text.
        optional: Whether an answer without a call of the tool has the value `None`.
        grows: Whether a stream yields partial values during the generation.
    """

    load: Load
    tool: str | None = None
    optional: bool = False
    grows: bool = False

    @override
    def parse(self, text: str) -> Any:
        return self._parse(AIMessage(text))

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        [generation, *_] = result
        message = generation.message if isinstance(generation, ChatGeneration) else AIMessage(generation.text)
        return self._parse_part(message) if partial else self._parse(message)

    @override
    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for piece in input:
            yield from growing.push(piece)
        yield from growing.finish()

    @override
    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for piece in input:
            for value in growing.push(piece):
                yield value
        for value in growing.finish():
            yield value

    def error_of(self, message: BaseMessage) -> OutputParserException | None:
        """Return the error of parsing an answer, or `None`."""
        try:
            self.parse_result([ChatGeneration(message=message)])
        except OutputParserException as error:
            return error
        return None

    @property
    def _type(self) -> str:
        return "cyllama-answer"

    # -------------------- internal

    def _parse(self, message: BaseMessage) -> Any:
        text, error = self._text_of(message)
        _check_ended(message, text)
        if text is None:
            if self.optional:
                return None
            raise OutputParsingError(
                f"the answer does not call {self.tool!r}, the tool of the schema: {_shown(str(message.text))}",
                str(message.text),
            )
        try:
            value = self.load(text)
        except (ValueError, RecursionError) as problem:
            raise OutputParsingError(_why_not(text, problem), text) from problem
        if error is not None:
            raise OutputParsingError(_why_not(text, error), text)
        return value

    def _text_of(self, message: BaseMessage) -> tuple[str | None, str | None]:
        """Return the JSON text of an answer, and its error; `None` twice if the answer does not call the tool."""
        if self.tool is None:
            return str(message.text), None
        found = (call[1:] for call in _arguments(message) if call[0] == self.tool)
        return next(found, (None, None))

    def _parse_part(self, message: BaseMessage) -> Any:
        """Return a partial value, or `None`."""
        text = self._text_of(message)[0] if self.grows else None
        try:
            return None if text is None else parse_partial_json(text)
        except ValueError:
            return None


class _Growing:
    """An answer that comes in chunks, and the values that a stream of it yields."""

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._message: Any = None
        self._last: Any = _NOTHING

    def push(self, piece: str | BaseMessage) -> Iterator[Any]:
        message = AIMessage(piece) if isinstance(piece, str) else piece
        if self._message is None or not isinstance(message, BaseMessageChunk):
            self._message = message
        else:
            self._message = self._message + message
        if self._parser.grows and (value := self._parse(partial=True)) is not None:
            yield from self._new(value)

    def finish(self) -> Iterator[Any]:
        if self._message is not None:
            yield from self._new(self._parse(partial=False))

    def _parse(self, *, partial: bool) -> Any:
        return self._parser.parse_result([ChatGeneration(message=self._message)], partial=partial)

    def _new(self, value: Any) -> Iterator[Any]:
        if self._last is _NOTHING or value != self._last:
            self._last = value
            yield value


def structured_output(
    model: BaseChatModel,
    schema: Any,
    *,
    method: Literal["function_calling", "json_mode", "json_schema"],
    include_raw: bool,
    strict: bool | None,
    options: Mapping[str, Any],
) -> Runnable[Any, Any]:
    """Return a model whose answers are values of a schema. Arguments are those of `with_structured_output`.

    Raises:
        ConfigError: There is no such method, or the schema is missing.
        SchemaError: There is no JSON schema of `schema`.
    """
    if method not in ("function_calling", "json_mode", "json_schema"):
        raise ConfigError(f"method is 'json_schema', 'function_calling' or 'json_mode', not {method!r:.80}")
    if schema is None and method != "json_mode":
        raise ConfigError(f"method={method!r} needs a schema: a pydantic class, a TypedDict or a JSON schema")
    wanted = None if schema is None else read_schema(schema)
    shown: dict[str, Any] = {"kwargs": {"method": method, "strict": strict}}
    if method == "json_mode":
        del shown["kwargs"]["strict"]
    shown["schema"] = None if wanted is None else wanted.shown
    options = {"ls_structured_output_format": shown, **options}
    if wanted is not None and method == "function_calling":
        return structured(*_calling(model, wanted, strict, options), include_raw=include_raw)
    form: dict[str, Any] = {"type": "json_object"}
    if wanted is not None and method == "json_schema":
        form = wanted.response_format(strict)
    load, grows = (json.loads, True) if wanted is None else (wanted.load, wanted.grows)
    asked = model.bind(**{"response_format": form, **options})
    return structured(asked, AnswerParser(load=load, grows=grows), include_raw=include_raw)


def _calling(
    model: BaseChatModel, wanted: OutputSchema, strict: bool | None, options: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], AnswerParser]:
    """Return a model that calls the tool of a schema, and the parser of its calls."""
    name = wanted.tool["function"]["name"]
    options = {"tool_choice": name, "parallel_tool_calls": False, **options}
    checked = True if options.get("max_attempts", 1) != 1 else strict  # what is not checked is not tried again
    asked = model.bind_tools([wanted.tool_of(checked)], **options)
    optional = options["tool_choice"] in ("auto", "none", None, False)
    return asked, AnswerParser(load=wanted.load_arguments, tool=name, optional=optional, grows=wanted.streams_calls)


def structured(model: Runnable[Any, Any], parser: AnswerParser, *, include_raw: bool) -> Runnable[Any, Any]:
    """Return a model whose answers are values.

    Args:
        model: The model, bound to arguments that give answers for the parser.
        parser: Parses the answers.
        include_raw: Whether the result is a dict of `raw`, `parsed` and `parsing_error`. The error of the parser is
            then in the dict, and not raised.
    """
    if not include_raw:
        return model | parser
    raw = operator.itemgetter("raw")
    parsed = parser.with_fallbacks([RunnableLambda(_none)])
    error = RunnableLambda(parser.error_of)
    # RunnablePassthrough.assign() would make a parametrized generic class, which pickle cannot find by its name.
    outcome = RunnableAssign(RunnableMap(parsed=raw | parsed, parsing_error=raw | error))
    return RunnableMap(raw=model) | outcome


def _none(_message: Any) -> None:
    return None


def _arguments(message: BaseMessage) -> Iterator[tuple[str | None, str, str | None]]:
    """Yield the tools that a message calls, the arguments as they were generated, and their errors."""
    if not isinstance(message, AIMessage):
        return
    errors = {call["id"]: call["error"] for call in message.invalid_tool_calls}
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        for piece in message.tool_call_chunks:  # not tool_calls: LangChain may have repaired them
            yield piece["name"], piece["args"] or "", errors.get(piece["id"])
        return
    for call in message.tool_calls:
        yield call["name"], json.dumps(call["args"]), None
    for broken in message.invalid_tool_calls:
        yield broken["name"], broken["args"] or "", broken["error"] or "the call is not valid"


def _check_ended(message: BaseMessage, text: str | None) -> None:
    """Raise an error for an answer that was cut or cancelled."""
    reason = message.response_metadata.get("finish_reason")
    so_far = str(message.text) if text is None else text
    if reason == "length":
        raise OutputParsingError(
            "the answer was cut at max_tokens, or at the end of the context, before it was complete (finish_reason is "
            f"'length'): increase max_tokens (or n_ctx). What there is of it: {_shown(so_far)}",
            so_far,
        )
    if reason == "cancelled":
        raise OutputParsingError(
            "the answer was cancelled before it was complete (its session was reset, or the model closed): ask again; "
            f"max_tokens is not the reason. What there is of it: {_shown(so_far)}",
            so_far,
        )


def _why_not(text: str, error: object) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        reason = f"is not complete JSON ({error}): did a stop string end it? max_tokens did not"
    else:
        reason = f"does not fit the schema ({error})"
    return f"the answer {reason}. All of it: {_shown(text)}"


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
