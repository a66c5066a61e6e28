"""The options of calls by name, for type checkers and editors.

:class:`GenerationConfig` checks them, and its docstring says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from .chat import ReasoningEffort, ToolChoiceLike, ToolLike
from .config import Sampler, check_option_names
from .grammar import ResponseFormatLike


class GenerationOptions(TypedDict, total=False):
    """What every call takes: the options of :class:`GenerationConfig`."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    penalty_last_n: int
    frequency_penalty: float
    presence_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    top_n_sigma: float
    samplers: Sequence[Sampler]
    mirostat: Literal[0, 1, 2]
    mirostat_tau: float
    mirostat_eta: float
    seed: int | None
    stop_sequences: str | Sequence[str]
    logit_bias: Mapping[int, float]
    ignore_eos: bool
    logprobs: int | None
    n_ctx: int | None
    n_batch: int
    add_bos: bool | None
    parse_special: bool
    lora: Mapping[str, float]


class TextOptions(GenerationOptions, total=False):
    """What calls take that continue a text."""

    grammar: str | None
    response_format: ResponseFormatLike


class AttemptOptions(TextOptions, total=False):
    """What calls take that wait for a whole text."""

    max_attempts: int


class RenderOptions(TypedDict, total=False):
    """What the prompt of a chat depends on besides the messages."""

    tools: Sequence[ToolLike] | None
    chat_template: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    enable_thinking: bool | None
    reasoning_effort: ReasoningEffort | None
    continue_final_message: bool | None


class ChatOptions(AttemptOptions, RenderOptions, total=False):
    """What calls take that answer a chat."""

    tool_choice: ToolChoiceLike
    parallel_tool_calls: bool
    reasoning_budget: int | None


#: The names of those options of a chat that are not options of :class:`GenerationConfig`.
CHAT_OPTIONS = ChatOptions.__optional_keys__ - GenerationOptions.__optional_keys__


def split_chat_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a chat, and those of a :class:`GenerationConfig`.

    Raises:
        ConfigTypeError: There is no such option.
    """
    check_option_names("LLM.chat", options, sorted(ChatOptions.__optional_keys__))
    return (
        {name: value for name, value in options.items() if name in CHAT_OPTIONS},
        {name: value for name, value in options.items() if name not in CHAT_OPTIONS},
    )
