"""The dicts that :class:`Llama` returns: OpenAI's, by the names that llama-cpp-python's `llama_types` has for them."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict


class CompletionUsage(TypedDict):
    """How many tokens a completion took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(TypedDict):
    """The tokens of a text, in lists of the same length."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(TypedDict):
    """One continuation of a prompt, or a piece of it."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class CreateCompletionResponse(TypedDict):
    """The answer of :meth:`Llama.create_completion`, and each chunk of its stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[CompletionUsage]


CreateCompletionStreamResponse = CreateCompletionResponse


class ChatCompletionMessageToolCallFunction(TypedDict):
    """Name of a tool, and the JSON text of its arguments."""

    name: str
    arguments: str


class ChatCompletionMessageToolCall(TypedDict):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: ChatCompletionMessageToolCallFunction


class ChatCompletionResponseMessage(TypedDict):
    """The message of an answer."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: NotRequired[list[ChatCompletionMessageToolCall]]
    function_call: NotRequired[ChatCompletionMessageToolCallFunction]
    reasoning_content: NotRequired[str]


class ChatCompletionTopLogprobToken(TypedDict):
    """A token that was likely in some place."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatCompletionLogprobToken(ChatCompletionTopLogprobToken):
    """A token that was generated, and the likeliest ones in its place."""

    top_logprobs: list[ChatCompletionTopLogprobToken]


class ChatCompletionLogprobs(TypedDict):
    """The tokens of an answer."""

    content: list[ChatCompletionLogprobToken] | None
    refusal: None


class ChatCompletionResponseChoice(TypedDict):
    """One answer."""

    index: int
    message: ChatCompletionResponseMessage
    logprobs: ChatCompletionLogprobs | None
    finish_reason: str | None


class CreateChatCompletionResponse(TypedDict):
    """The answer of :meth:`Llama.create_chat_completion`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: CompletionUsage


class ChatCompletionStreamResponseChoice(TypedDict):
    """A piece of an answer: what it adds to the message."""

    index: int
    delta: dict[str, Any]
    finish_reason: str | None
    logprobs: ChatCompletionLogprobs | None


class CreateChatCompletionStreamResponse(TypedDict):
    """A chunk of the stream of :meth:`Llama.create_chat_completion`; the last one has the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatCompletionStreamResponseChoice]
    usage: NotRequired[CompletionUsage]


class EmbeddingUsage(TypedDict):
    """How many tokens the texts of a call have."""

    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """The vector of one text."""

    index: int
    object: str
    embedding: list[float]


class CreateEmbeddingResponse(TypedDict):
    """The answer of :meth:`Llama.create_embedding`."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage
