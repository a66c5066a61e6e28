"""LangChain's messages as cyllama's, and cyllama's answers as LangChain's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages import content as types
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk

from cyllama import ChatDelta, ChatResponse, MessageError, TokenLogprob, ToolCall, Usage

MODEL_PROVIDER = "cyllama"

# ------------------------------------------------------------------------------------------------ LangChain to cyllama

_ROLES = {"human": "user", "ai": "assistant", "function": "tool"}
_MEDIA = {
    "image": "an image",
    "image_url": "an image",
    "input_image": "an image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "a video",
    "document": "a document",
    "file": "a file",
    "input_file": "a file",
    "media": "a file",
}
_TEXTS = frozenset(("text", "input_text", "output_text", "text-plain"))
_REASONING = frozenset(("reasoning", "thinking"))
_CALLS = frozenset(("tool_call", "tool_use"))
#: What an assistant's content may hold beside its text, and what is taken from elsewhere, or was for its provider only.
_NOT_TEXT = (
    _REASONING
    | _CALLS
    | frozenset(("redacted_thinking", "tool_call_chunk", "invalid_tool_call", "function_call", "non_standard"))
    | frozenset(("server_tool_call", "server_tool_call_chunk", "server_tool_result"))
)


def to_cyllama(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as `cyllama.LLM.chat` takes them.

    Args:
        messages: The whole history.

    Returns:
        Dicts in OpenAI's format.

    Raises:
        MessageError: One of them cannot be read by a language model: it has an image, audio, a video or a file, or it
            is no message but a command, such as `RemoveMessage`.
    """
    return [converted for i, message in enumerate(messages) for converted in _convert(message, f"message {i}")]


def _convert(message: BaseMessage, where: str) -> Iterator[dict[str, Any]]:
    if isinstance(message, AIMessage):
        yield _assistant(message, where)
    elif isinstance(message, HumanMessage):
        yield from _user(message, where)
    elif isinstance(message, SystemMessage):
        role = message.additional_kwargs.get("__openai_role__", "system")
        yield _message(role, message, where)
    elif isinstance(message, ToolMessage):
        yield _message("tool", message, where, tool_call_id=message.tool_call_id) | {"content": _result(message, where)}
    elif isinstance(message, FunctionMessage):
        yield _message("tool", message, where)
    elif isinstance(message, ChatMessage):
        yield _message(_ROLES.get(message.role, message.role), message, where)
    elif isinstance(message, RemoveMessage):
        raise MessageError(
            f"{where} is a RemoveMessage, which tells a graph to forget the message {message.id!r}, and nothing that a "
            f"model can read: let the graph's state apply it (add_messages), and pass what is left"
        )
    else:
        raise MessageError(f"{where} is a {type(message).__name__}, which is none of LangChain's kinds of messages")


def _message(role: str, message: BaseMessage, where: str, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"role": role, "content": _content(message.content, where)}
    if message.name:
        result["name"] = message.name
    return result | {key: value for key, value in more.items() if value}


def _user(message: HumanMessage, where: str) -> Iterator[dict[str, Any]]:
    """Yield a user's message, after the tool results that Anthropic's format has in it."""
    if isinstance(message.content, str):
        yield _message("user", message, where)
        return
    rest = []
    for block in message.content:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            yield {
                "role": "tool",
                "content": _content(block.get("content") or "", where),
                "tool_call_id": block.get("tool_use_id"),
            }
        else:
            rest.append(block)
    if rest or not message.content:
        yield _message("user", message.model_copy(update={"content": rest}), where)


def _result(message: ToolMessage, where: str) -> str | list[dict[str, str]]:
    content = _content(message.content, where)
    if message.status != "error" or "error" in json.dumps(content).lower():
        return content
    return f"Error: {content}" if isinstance(content, str) else [_text("Error:"), *content]


def _assistant(message: AIMessage, where: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "role": "assistant",
        # One text again, as it was generated: what a session holds of it stays of use.
        "content": "".join(_texts(message.content, where, ignored=_NOT_TEXT)),
    }
    if calls := list(_calls(message)):
        result["tool_calls"] = calls
    if reasoning := _reasoning(message):
        result["reasoning_content"] = reasoning
    if message.name:
        result["name"] = message.name
    return result


def _calls(message: AIMessage) -> Iterator[dict[str, Any]]:
    """Yield what a message calls, whoever made it."""
    for call in message.tool_calls:
        yield _call(call["id"], call["name"], call["args"])
    for call in message.invalid_tool_calls:
        yield _call(call["id"], call["name"] or "unknown", _as_object(call["args"]))
    if message.tool_calls or message.invalid_tool_calls:
        return
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, dict) and block.get("type") in _CALLS:
            yield _call(block.get("id"), block.get("name"), block.get("args", block.get("input")))
    function = message.additional_kwargs.get("function_call")
    if isinstance(function, Mapping):
        yield _call(None, function.get("name"), _as_object(function.get("arguments")))


def _call(call_id: str | None, name: Any, arguments: Any) -> dict[str, Any]:
    return {"id": call_id or "", "type": "function", "function": {"name": name, "arguments": arguments}}


def _as_object(arguments: str | None) -> dict[str, Any]:
    """Return arguments that templates can read, also where a model broke them: it shall see what it wrote."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": arguments}


def _reasoning(message: AIMessage) -> str:
    blocks = message.content if isinstance(message.content, list) else ()
    found = (
        block.get("reasoning") or block.get("thinking") or ""
        for block in blocks
        if isinstance(block, dict) and block.get("type") in _REASONING
    )
    given = message.additional_kwargs.get("reasoning_content")
    return "".join(found) or (given if isinstance(given, str) else "")


def _content(content: str | Sequence[str | dict[str, Any]], where: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    texts = list(_texts(content, where))
    return texts[0] if len(texts) == 1 else [_text(text) for text in texts]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _texts(
    content: str | Iterable[str | dict[str, Any]], where: str, ignored: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield the texts of a content."""
    if isinstance(content, str):
        yield content
        return
    for block in content:
        if isinstance(block, str):
            yield block
            continue
        kind = block.get("type")
        text = block.get("text")
        if isinstance(text, str) and (kind in _TEXTS or block.get("source_type") == "text"):
            yield text
        elif kind == "refusal":
            yield block.get("refusal") or ""
        elif kind not in ignored:
            raise MessageError(
                f"the content of {where} has {_MEDIA.get(kind or '', f'a block of type {kind!r:.80}')}, but a language "
                'model reads only text, {"type": "text", "text": ...}: leave it out, or put into words what it shows'
            )


# ------------------------------------------------------------------------------------------------ cyllama to LangChain


def to_langchain(response: ChatResponse, model_name: str | None = None) -> AIMessage:
    """Return the message of a response.

    A tool call that was cut off is among `invalid_tool_calls`.

    Args:
        response: The response.
        model_name: What the caller calls the model; by default its own name.
    """
    calls: list[LangChainToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in response.message.tool_calls:
        arguments = _parse_arguments(call)
        if arguments is None:
            error = "the arguments are no JSON object" + ("; the answer was cut" * (response.finish_reason != "stop"))
            invalid.append(
                invalid_tool_call(name=call.function.name, args=call.function.arguments, id=call.id, error=error)
            )
        else:
            calls.append(tool_call(name=call.function.name, args=arguments, id=call.id))
    return AIMessage(
        content=response.text,
        additional_kwargs=_additional(response.message.reasoning_content),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage_metadata(response.usage),
        response_metadata={**response_metadata(response, model_name), **_logprobs(response.logprobs or ())},
    )


def _parse_arguments(call: ToolCall) -> dict[str, Any] | None:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def to_chunk(delta: ChatDelta) -> AIMessageChunk:
    """Return a piece of a message."""
    pieces: list[ToolCallChunk] = [
        tool_call_chunk(name=piece.function.name, args=piece.function.arguments, id=piece.id, index=piece.index)
        for piece in delta.tool_calls
    ]
    return AIMessageChunk(
        content=delta.content,
        additional_kwargs=_additional(delta.reasoning_content),
        tool_call_chunks=pieces,
        response_metadata={"model_provider": MODEL_PROVIDER, **_logprobs(delta.logprobs)},
    )


def to_last_chunk(response: ChatResponse, model_name: str | None = None) -> AIMessageChunk:
    """Return what is known of a message once it is complete, with arguments as for `to_langchain`."""
    return AIMessageChunk(
        content="",
        usage_metadata=usage_metadata(response.usage),
        response_metadata=response_metadata(response, model_name),
        chunk_position="last",
    )


def _additional(reasoning: str) -> dict[str, Any]:
    return {"reasoning_content": reasoning} if reasoning else {}


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log probabilities as OpenAI's API has them."""
    if not tokens:
        return {}
    content = [{**_logprob(token), "top_logprobs": [_logprob(top) for top in token.top]} for token in tokens]
    return {"logprobs": {"content": content}}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "bytes": list(token.bytes), "logprob": token.logprob}


def usage_metadata(usage: Usage) -> UsageMetadata:
    """Return the tokens of a generation; `cache_read` of its input did not have to be evaluated."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def response_metadata(response: ChatResponse, model_name: str | None = None) -> dict[str, Any]:
    """Return how a message came about: also by the names that ChatOllama has, in nanoseconds as there."""
    timings = response.timings
    return {
        "model_name": model_name or response.model,
        "model_provider": MODEL_PROVIDER,
        "finish_reason": response.finish_reason,
        "timings": {"queued": timings.queued, "prompt": timings.prompt, "generation": timings.generation},
        "model": response.model,
        "done": True,
        "done_reason": "length" if response.finish_reason == "length" else "stop",
        "total_duration": round(timings.total * 1e9),
        "load_duration": 0,
        "prompt_eval_count": response.usage.prompt_tokens,
        "prompt_eval_duration": round(timings.prompt * 1e9),
        "eval_count": response.usage.completion_tokens,
        "eval_duration": round(timings.generation * 1e9),
    }


# -------------------------------------------------------------------------------------------------- LangChain's blocks


def _translate(message: AIMessage) -> list[types.ContentBlock]:
    """Return the blocks that LangChain makes of a message of any provider."""
    metadata = {key: value for key, value in message.response_metadata.items() if key != "model_provider"}
    return message.model_copy(update={"response_metadata": metadata}).content_blocks


def _translate_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Return the blocks of a chunk, in which no tool call has the index of a text.

    LangChain numbers what has no index, and takes two blocks of the same index for one.
    """
    blocks = _translate(message)
    if not message.tool_call_chunks or message.chunk_position == "last":
        return blocks
    kept = [block for block in blocks if block["type"] not in ("tool_call", "invalid_tool_call", "tool_call_chunk")]
    pieces = [
        {
            "type": "tool_call_chunk",
            "id": piece["id"],
            "name": piece["name"],
            "args": piece["args"],
            "index": f"lc_tc_{piece['index']}",
        }
        for piece in message.tool_call_chunks
    ]
    return kept + cast("list[types.ContentBlock]", pieces)


register_translator(MODEL_PROVIDER, _translate, _translate_chunk)
