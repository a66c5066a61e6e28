"""Requests of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from cyllama import LLM
from cyllama.chat import ReasoningEffort

from .conversations import NamesConversation, stable_messages
from .errors import ApiError
from .functions import as_tool_choice, as_tool_messages, as_tools
from .sampling import Sampling

MOST_CHOICES = 128
PROMPT_OPTIONS = ("tools", "chat_template_kwargs", "enable_thinking", "reasoning_effort")
"""The options of a chat that change its prompt."""


class StreamOptions(Sampling):
    """How an answer is streamed."""

    include_usage: bool | None = None


class ChatRequest(Sampling, NamesConversation):
    """A chat to answer, as OpenAI's API has it. Unknown fields are ignored.

    Those of llama-server are taken by their names, and so are `reasoning_budget` and `continue_final_message`.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_budget: int | None = None
    continue_final_message: bool | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The messages, without what differs in every request."""
        return stable_messages(as_tool_messages(self.messages))

    def call_options(self, llm: LLM, *, limit: int | None) -> dict[str, Any]:
        """Return the options of the call that answers it.

        Args:
            llm: The model.
            limit: Most tokens of any answer.

        Raises:
            ApiError: A field is not valid.
        """
        found = self.options(llm, limit=limit) | self.prompt_options()
        found["parallel_tool_calls"] = self.parallel_tool_calls is not False and not self.functions
        for name in ("tool_choice", "grammar", "reasoning_budget", "continue_final_message"):
            value = getattr(self, name)
            if value not in (None, ""):
                found[name] = value
        if self.function_call is not None:
            found["tool_choice"] = as_tool_choice(self.function_call)
        if found.get("tool_choice") in ("none", "auto") and "tools" not in found:
            del found["tool_choice"]
        expected = self.response_format if self.response_format is not None else self.json_schema
        if expected is not None:
            found["response_format"] = expected
        if (top := self._n_logprobs()) is not None:
            found["logprobs"] = top
        return found

    def prompt_options(self) -> dict[str, Any]:
        """Return the options that change the prompt."""
        found = {name: value for name in PROMPT_OPTIONS if (value := getattr(self, name)) not in (None, [])}
        if self.functions:
            if "tools" in found:
                raise ApiError(400, "functions is the old name of tools: send one of them", param="functions")
            found["tools"] = as_tools(self.functions)
        return found

    def _n_logprobs(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
        return self.n_probs or None
