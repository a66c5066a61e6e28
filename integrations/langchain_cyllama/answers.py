"""cyllama's answers as LangChain's messages: complete, and in chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessageChunk, InvalidToolCall
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages import content as types
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata, add_ai_message_chunks
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr
from typing_extensions import override

from cyllama import ChatDelta, ChatResponse, OutputError, TokenLogprob, ToolCall, Usage

MODEL_PROVIDER = "cyllama"


def to_langchain(
    response: ChatResponse, model_name: str | None = None, refused: OutputError | None = None
) -> AIMessage:
    """Return the message of a response.

    A tool call that was cut off is among `invalid_tool_calls`.

    Args:
        response: The response.
        model_name: The name that the caller gave to the model; by default its own name.
        refused: The error of a call of a strict tool that is not valid.
    """
    calls, invalid = _read_calls(response, refused)
    return AIMessage(
        content=response.text,
        additional_kwargs=_additional(response.message.reasoning_content),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage_metadata(response.usage),
        response_metadata={**response_metadata(response, model_name), **_logprobs(response.logprobs or ())},
    )


_CUT = "the arguments are not a complete JSON object: the answer was cut, by max_tokens or by a stop string"


def _read_calls(
    response: ChatResponse, refused: OutputError | None
) -> tuple[list[LangChainToolCall], list[InvalidToolCall]]:
    """Return the valid calls of a response, and those that were cut or refused."""
    calls: list[LangChainToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in response.message.tool_calls:
        name, text = call.function.name, call.function.arguments
        arguments = _parse_arguments(call)
        if arguments is None:
            invalid.append(invalid_tool_call(name=name, args=text, id=call.id, error=_CUT))
        elif refused is not None and refused.text == text:
            invalid.append(invalid_tool_call(name=name, args=text, id=call.id, error=str(refused)))
        else:
            calls.append(tool_call(name=call.function.name, args=arguments, id=call.id))
    return calls, invalid


def _parse_arguments(call: ToolCall) -> dict[str, Any] | None:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def to_chunk(delta: ChatDelta) -> AIMessageChunk:
    """Return one chunk of a message."""
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


def to_whole_chunk(response: ChatResponse) -> AIMessageChunk:
    """Return a whole message as one chunk, which the last chunk follows."""
    message = response.message
    pieces = [
        tool_call_chunk(name=call.function.name, args=call.function.arguments, id=call.id, index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(
        content=response.text,
        additional_kwargs=_additional(message.reasoning_content),
        tool_call_chunks=pieces,
        response_metadata={"model_provider": MODEL_PROVIDER, **_logprobs(response.logprobs or ())},
    )


def to_last_chunk(
    response: ChatResponse, model_name: str | None = None, refused: OutputError | None = None
) -> AIMessageChunk:
    """Return the last chunk of a message: token usage, finish reason and timings.

    The sum of all chunks has the tool calls of `to_langchain`.
    """
    calls, invalid = _read_calls(response, refused)
    known: dict[str, Any] = {
        "content": "",
        "usage_metadata": usage_metadata(response.usage),
        "response_metadata": response_metadata(response, model_name),
        "chunk_position": "last",
    }
    if not invalid:
        return AIMessageChunk(**known)
    last = LastChunkOfBrokenCalls(**known)
    last.set_calls(calls, invalid)
    return last


class LastChunkOfBrokenCalls(AIMessageChunk):
    """The last chunk of a message with a tool call that was cut, or that is not valid.

    In a sum of chunks, LangChain closes the open brackets of arguments, which makes a cut call a valid one. Adding this
    chunk restores the calls as they were generated. (Not in `chunk + [chunk, ...]` of messages: there LangChain calls
    no method of the chunks.)
    """

    _calls: list[LangChainToolCall] = PrivateAttr(default_factory=list)
    _invalid: list[InvalidToolCall] = PrivateAttr(default_factory=list)

    def set_calls(self, calls: list[LangChainToolCall], invalid: list[InvalidToolCall]) -> None:
        """Set the valid calls of the message, and those that are not valid."""
        self._calls, self._invalid = calls, invalid

    def correct(self, total: BaseMessageChunk) -> None:
        """Restore the calls in a sum of chunks that ends with this one."""
        if not isinstance(total, AIMessageChunk):
            return
        total.tool_calls, total.invalid_tool_calls = list(self._calls), list(self._invalid)
        if not isinstance(total.content, list):
            return
        invalid = {call["id"]: call for call in self._invalid}
        for i, block in enumerate(total.content):
            if isinstance(block, dict) and block.get("type") == "tool_call" and block.get("id") in invalid:
                total.content[i] = cast("dict[str, Any]", invalid[block["id"]])

    def __radd__(self, left: AIMessageChunk) -> AIMessageChunk:
        """Return the sum: Python calls this method first, because this class derives from the class of `left`."""
        total = add_ai_message_chunks(left, self)
        self.correct(total)
        return total

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return the id of `AIMessageChunk`: serialized, it is one."""
        return AIMessageChunk.lc_id()


class AnswerChunk(ChatGenerationChunk):
    """A chunk of an answer, to which a list of chunks is added like single ones."""

    @override
    def __add__(self, other: ChatGenerationChunk | list[ChatGenerationChunk]) -> ChatGenerationChunk:
        total = super().__add__(other)
        for chunk in other if isinstance(other, list) else [other]:
            if isinstance(chunk.message, LastChunkOfBrokenCalls):
                chunk.message.correct(total.message)
        return AnswerChunk(message=total.message, generation_info=total.generation_info)


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
    """Return the token counts of a generation. `cache_read` tokens of the input were not evaluated."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def response_metadata(response: ChatResponse, model_name: str | None = None) -> dict[str, Any]:
    """Return finish reason and timings of a message, also by the names of ChatOllama, in nanoseconds."""
    timings = response.timings
    return {
        "model_name": model_name or response.model,
        "model_provider": MODEL_PROVIDER,
        "finish_reason": response.finish_reason,
        "timings": asdict(timings),
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


# ------------------------------------------------------------------------------------------------- LangChain's results


def to_result(response: ChatResponse, refused: OutputError | None, model_name: str | None) -> ChatResult:
    """Return a response as the result of `invoke` and similar methods.

    Args:
        response: The response.
        refused: The error of a call of a strict tool that is not valid.
        model_name: The name that the caller gave to the model.
    """
    message = to_langchain(response, model_name, refused)
    usage = response.usage
    generation = ChatGeneration(message=message, generation_info={"finish_reason": response.finish_reason})
    return ChatResult(
        generations=[generation],
        llm_output={
            "token_usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
            "model_name": message.response_metadata["model_name"],
        },
    )


def to_last(response: ChatResponse, refused: OutputError | None, model_name: str | None) -> AnswerChunk:
    """Return the last chunk of a stream: token usage, finish reason and timings."""
    info = {"finish_reason": response.finish_reason}
    return AnswerChunk(message=to_last_chunk(response, model_name, refused), generation_info=info)


# -------------------------------------------------------------------------------------------------- LangChain's blocks


def _translate(message: AIMessage) -> list[types.ContentBlock]:
    """Return the blocks that LangChain makes of a message of an unknown provider."""
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
