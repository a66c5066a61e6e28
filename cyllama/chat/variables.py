"""The variables of a chat template besides messages and tools: whether to reason, how hard, and its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from ..errors import ConfigError, ConfigTypeError, PromptError
from .reasoning import check_budget

#: How hard a model reasons, by OpenAI's names. "none" turns reasoning off.
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
REASONING_EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)

_EFFORT, _THINKING = "reasoning_effort", "enable_thinking"
_RESERVED = {
    "messages": "pass them as the first argument",
    "tools": "pass tools=",
    "add_generation_prompt": "pass continue_final_message= to go on with the last message",
    "bos_token": "the model's own token is used",
    "eos_token": "the model's own token is used",
}


@dataclass(frozen=True)
class TemplateVariables:
    """The variables of a template besides messages and tools.

    Attributes:
        thinking: Whether the model reasons, where its template can be told.
        others: More variables by name, each as JSON text.
        budget: Tokens that the model may reason with; ``None`` for any number. Templates do not get it.
    """

    thinking: bool = True
    others: dict[str, str] = field(default_factory=dict)
    budget: int | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """The key by which these variables differ from others."""
        return (self.thinking, *sorted(self.others.items()))


def check_variables(
    chat_template_kwargs: Mapping[str, Any] | None = None,
    enable_thinking: bool | None = None,
    reasoning_effort: str | None = None,
    reasoning_budget: int | None = None,
) -> TemplateVariables:
    """Return the variables of a template.

    Args:
        chat_template_kwargs: Variables of the template by name, of which the values are JSON: None, bool, numbers, str,
            lists and dicts of them.
        enable_thinking: Whether the model reasons. ``None`` as ``chat_template_kwargs`` says, else it does.
        reasoning_effort: How hard it reasons, by OpenAI's names; the template's variable of that name. "none" turns
            reasoning off.
        reasoning_budget: Tokens that it may reason with. 0 turns reasoning off.

    Raises:
        ConfigTypeError: An argument has the wrong type.
        ConfigError: A variable cannot be given this way, or two arguments contradict each other.
        PromptError: A text has lone surrogates.
    """
    variables = _check_kwargs(chat_template_kwargs)
    if enable_thinking is not None and not isinstance(enable_thinking, bool):
        raise ConfigTypeError(f"enable_thinking is a bool, not {enable_thinking!r:.80}")
    budget, effort = check_budget(reasoning_budget), _check_effort(reasoning_effort)
    if budget == 0:
        _agree(_THINKING, False, enable_thinking, "reasoning_budget=0", "enable_thinking=True")
        enable_thinking = False
    if effort == "none":
        _agree(_THINKING, False, enable_thinking, "reasoning_effort='none'", "enable_thinking=True")
        enable_thinking = False
    elif effort is not None:
        _agree(_EFFORT, effort, variables.get(_EFFORT), f"reasoning_effort={effort!r}", "chat_template_kwargs")
        variables[_EFFORT] = effort
    in_kwargs = variables.pop(_THINKING, None)
    if in_kwargs is not None and not isinstance(in_kwargs, bool):
        raise ConfigTypeError(f"chat_template_kwargs: enable_thinking is a bool, not {in_kwargs!r:.80}")
    if enable_thinking is not None:
        _agree(_THINKING, enable_thinking, in_kwargs, f"enable_thinking={enable_thinking}", "chat_template_kwargs")
    thinking = enable_thinking if enable_thinking is not None else in_kwargs
    others = {name: _dump(name, value) for name, value in variables.items()}
    return TemplateVariables(thinking is not False, others, budget)


def _check_kwargs(given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigTypeError(f"chat_template_kwargs is a dict, not {type(given).__name__}: {given!r:.80}")
    variables: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name:
            raise ConfigTypeError(f"chat_template_kwargs: the name of a variable is a str, not {name!r:.80}")
        if name in _RESERVED:
            raise ConfigError(f"chat_template_kwargs cannot set {name!r}: {_RESERVED[name]}")
        variables[name] = value
    return variables


def _check_effort(effort: object) -> str | None:
    if effort is None:
        return None
    if not isinstance(effort, str):
        raise ConfigTypeError(f"reasoning_effort is a str, not {type(effort).__name__}: {effort!r:.80}")
    if effort not in REASONING_EFFORTS:
        raise ConfigError(
            f"reasoning_effort is one of {', '.join(REASONING_EFFORTS)}, not {effort!r:.80}: if the template has other "
            "names, pass them in chat_template_kwargs"
        )
    return effort


def _agree(name: str, value: object, other: object, first: str, second: str) -> None:
    if other is not None and other != value:
        raise ConfigError(f"{first} contradicts {second}, where {name} is {other!r:.80}: leave one of them out")


def _dump(name: str, value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        name.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"chat_template_kwargs: {name!a:.80} has a lone surrogate in a text") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigTypeError(f"chat_template_kwargs: {name!r:.80} is not JSON: {error}") from error
    return text
