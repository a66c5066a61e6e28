"""From the arguments of a call to a task for the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .config import ConfigLike, GenerationConfig, check_option_names
from .control_text import RenderedChat
from .engine import AdapterSet, Prompt
from .errors import ConfigError, ConfigTypeError
from .llama.llama_cpp import LlamaSampler
from .loaded_model import LoadedModel

if TYPE_CHECKING:
    from .call_types import PromptLike
    from .chat import ChatPlan, MessageLike
    from .grammar import ResponseFormat, ResponseFormatLike

MAX_CONTINUATIONS = 1024


@dataclass(frozen=True)
class Task:
    """What one call generates, and how. It does not keep the loaded.

    Attributes:
        prompt: What to continue.
        config: The options, those that the call does not give included.
        adapters: LoRA adapters to compute with.
        first_samplers: Makes samplers that come before those of the config, such as one of a grammar.
        preserved: Control tokens whose text is part of the answer's.
        response_format: What the value of the text is; that of a chat is its plan's.
        is_retry: Whether it is a later attempt of a call, which is not refused where too many wait: the call had a
            place, and has an answer already.
    """

    prompt: Prompt
    config: GenerationConfig
    adapters: AdapterSet
    first_samplers: Callable[[], Sequence[LlamaSampler]] = tuple
    preserved: frozenset[int] = frozenset()
    response_format: ResponseFormat | None = None
    is_retry: bool = False


def text_task(
    loaded: LoadedModel,
    prompt: PromptLike,
    config: ConfigLike,
    overrides: Mapping[str, Any],
    grammar: str | None = None,
    response_format: ResponseFormatLike = None,
    *,
    append: bool = False,
) -> Task:
    """Return the task of a call that continues a text; ``append`` if a conversation goes on with it.

    Raises:
        CyllamaError: What :meth:`LLM.__call__` raises for its arguments.
    """
    merged = loaded.defaults.merge(config, overrides)
    first_samplers, expected = _constraint(loaded, grammar, response_format)
    given, adapters = _prompt_and_adapters(loaded, prompt, merged, append=append)
    return Task(given, merged, adapters, first_samplers, response_format=expected)


def _constraint(
    loaded: LoadedModel, grammar: str | None, response_format: ResponseFormatLike
) -> tuple[Callable[[], Sequence[LlamaSampler]], ResponseFormat | None]:
    """Return what makes the sampler of a text's grammar, and what the text's value is."""
    if grammar is None and response_format is None:
        return tuple, None
    from .chat import spec_samplers  # here, since most completions do without
    from .grammar import GrammarSpec, check_constraint

    text, expected = check_constraint(grammar, response_format, loaded.vocab)
    return tuple if text is None else partial(spec_samplers, loaded.vocab, GrammarSpec(text)), expected


def chat_task(
    loaded: LoadedModel, messages: Sequence[MessageLike], config: ConfigLike, options: Mapping[str, Any]
) -> tuple[ChatPlan, Task]:
    """Return how the answer to a chat is read, and the task that generates it.

    Raises:
        CyllamaError: What :meth:`LLM.chat` raises for its arguments.
    """
    from .chat import plan_samplers, preserved_token_ids  # here, since a completion does without
    from .options import split_chat_options

    loaded.check_process()
    of_chat, overrides = split_chat_options(options)
    plan = loaded.chat.prepare(messages, **of_chat)
    merged = loaded.defaults.merge(config, overrides)
    stops = tuple(dict.fromkeys([*merged.stop_sequences, *plan.stop_sequences]))
    merged = merged.merge(parse_special=True, stop_sequences=stops)
    given, adapters = _prompt_and_adapters(loaded, plan.prompt, merged)
    first_samplers = partial(plan_samplers, loaded.vocab, plan)
    return plan, Task(given, merged, adapters, first_samplers, preserved_token_ids(loaded.vocab, plan))


def _prompt_and_adapters(
    loaded: LoadedModel, prompt: PromptLike, config: GenerationConfig, *, append: bool = False
) -> tuple[Prompt, AdapterSet]:
    loaded.check_process()
    loaded.check_generates()
    loaded.check_speculation(config)
    loaded.warn_unless_it_speculates(config)
    return loaded.tokenizer.prompt(prompt, config, append=append), loaded.adapter_set(config)


def rendered(loaded: LoadedModel, messages: Sequence[MessageLike], options: Mapping[str, Any]) -> RenderedChat:
    """Return the prompt of a chat.

    Raises:
        CyllamaError: What :meth:`LLM.render` raises.
    """
    from .options import RenderOptions  # here, since a completion does without

    loaded.check_process()
    check_option_names("LLM.render", options, sorted(RenderOptions.__optional_keys__))
    return loaded.chat.render(messages, **options)


# -------------------- checks


def check_continuations(n: int, **others: object) -> None:
    """Check a number of continuations of one prompt.

    Args:
        n: The number.
        **others: Options by name that it cannot be combined with.

    Raises:
        ConfigError: It is out of its range, or one of the other options is in use.
        ConfigTypeError: It is not an integer.
    """
    if not isinstance(n, int) or isinstance(n, bool):
        raise ConfigTypeError(f"n is a number of continuations, not {type(n).__name__}: {n!r:.80}")
    if not 1 <= n <= MAX_CONTINUATIONS:
        raise ConfigError(f"n must be from 1 to {MAX_CONTINUATIONS}, not {n}")
    for name, value in others.items():
        if value:
            raise ConfigError(f"n={n} continuations cannot be combined with {name}: use sessions and fork() instead")
