"""The options of calls by name, for type checkers and editors.

Those of :class:`GenerationConfig` are declared in `config.py`, and `generation_options.py` is generated from them.
Those that only calls have are declared here: each once, with what it does beside its type. After a change, `make
options` writes the generated files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from typing_extensions import TypedDict

from .attempts import MAX_ATTEMPTS
from .chat import ReasoningEffort, ToolChoiceLike, ToolLike
from .config import OTHER_NAMES, GenerationConfig, by_own_names, check_option_names
from .declaration import Option, declaration
from .generation_options import GenerationOptions
from .grammar import ResponseFormatLike

__all__ = [
    "CHAT_OPTIONS",
    "AttemptOptions",
    "ChatOptions",
    "GenerationOptions",
    "RenderOptions",
    "TextOptions",
    "call_options",
    "find_option",
    "split_chat_options",
]


class TextOptions(GenerationOptions, total=False):
    """What calls take that continue a text."""

    grammar: Annotated[
        str | None, Option("GBNF, llama.cpp's language of grammars, that the text has to fit.", none="any text")
    ]
    response_format: Annotated[
        ResponseFormatLike,
        Option(
            'What the text has to be: "json", a JSON schema, OpenAI\'s dict, a pydantic model, or a type such as '
            "`list[Model]`, a dataclass, a `TypedDict` or a `Literal`.",
            none="any text",
        ),
    ]


class AttemptOptions(TextOptions, total=False):
    """What calls take that wait for a whole text."""

    max_attempts: Annotated[
        int,
        Option(
            "How often to sample until the text is valid under the part of its `response_format` that no grammar can "
            "express, and a call of a `strict` tool under its schema. Every attempt costs a whole answer.",
            unit="attempts",
            default=1,
            bounds=(1, MAX_ATTEMPTS),
        ),
    ]


class RenderOptions(TypedDict, total=False):
    """What the prompt of a chat depends on besides the messages."""

    tools: Annotated[
        Sequence[ToolLike] | None,
        Option(
            "What the model may call: OpenAI's dicts, pydantic models of the arguments, or functions whose arguments "
            "have annotations.",
            none="no tools",
        ),
    ]
    chat_template: Annotated[
        str | None,
        Option(
            "Jinja source of a template to use instead of the model's own, the name of a template that llama.cpp "
            'knows, such as "llama3", or the path of a file.',
            none="the model's own template",
            source="common_chat_templates_init",
        ),
    ]
    chat_template_kwargs: Annotated[
        Mapping[str, Any] | None, Option("Variables of the chat template by name; the values are JSON.")
    ]
    enable_thinking: Annotated[
        bool | None,
        Option(
            "Whether the model reasons before it answers, where its template has a switch for it.",
            none="as `chat_template_kwargs` says, else it reasons",
        ),
    ]
    reasoning_effort: Annotated[
        ReasoningEffort,
        Option(
            'How hard the model reasons, where its template has a variable for it: "minimal", "low", "medium", "high" '
            'or "xhigh"; "none" turns reasoning off.',
            none="as the template says",
        ),
    ]
    continue_final_message: Annotated[
        bool | None,
        Option(
            "Whether the answer continues the last message, the assistant's, instead of following it.",
            none="it does so if there is such a message, and what it says can be the beginning of the answer",
        ),
    ]


class ChatOptions(AttemptOptions, RenderOptions, total=False):
    """What calls take that answer a chat."""

    tool_choice: Annotated[
        ToolChoiceLike,
        Option(
            'Whether the model calls tools: "none", "auto", "required" or "any", the name of a tool, or OpenAI\'s '
            "dict. It changes what the model may write, not the prompt.",
            none='"auto" where there are tools',
        ),
    ]
    parallel_tool_calls: Annotated[bool, Option("Whether one answer may call several tools.", default=False)]
    reasoning_budget: Annotated[
        int | None,
        Option(
            "Most tokens that the model may reason with; then the end of its reasoning is forced, and it answers. "
            "-1 for any number; 0 turns reasoning off.",
            none="any number",
            unit="tokens",
            bounds=(-1, 2**31 - 1),
        ),
    ]


#: The names of those options of a chat that are not options of :class:`GenerationConfig`.
CHAT_OPTIONS = ChatOptions.__optional_keys__ - GenerationOptions.__optional_keys__


def split_chat_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a chat, and those of a :class:`GenerationConfig`.

    >>> split_chat_options({"tool_choice": "none", "temperature": 0})
    ({'tool_choice': 'none'}, {'temperature': 0})

    Raises:
        ConfigTypeError: There is no such option.
    """
    options = by_own_names(options)
    check_option_names("LLM.chat", options, sorted(ChatOptions.__optional_keys__))
    return (
        {name: value for name, value in options.items() if name in CHAT_OPTIONS},
        {name: value for name, value in options.items() if name not in CHAT_OPTIONS},
    )


def call_options() -> dict[str, tuple[Any, Option]]:
    """Return the type and the declaration of each option that calls have besides those of :class:`GenerationConfig`."""
    hints = get_type_hints(ChatOptions, include_extras=True)
    annotations = {name: get_args(hints[name]) for name in hints if name in CHAT_OPTIONS}
    return {name: (kind, said) for name, (kind, said) in annotations.items()}


def find_option(name: str) -> Option:
    """Return the declaration of an option of calls.

    >>> find_option("top_k").text
    'Keep the k most likely tokens; 0 keeps all.'

    Raises:
        ConfigTypeError: There is no such option.
    """
    check_option_names("LLM.chat", [name], sorted(ChatOptions.__optional_keys__))
    name = OTHER_NAMES.get(name, name)
    field = GenerationConfig.model_fields.get(name)
    return call_options()[name][1] if field is None else declaration(field)
