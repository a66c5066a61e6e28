"""What arguments mean, by cyllama's names and by those that users of other providers know."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from cyllama import ConfigError, GenerationConfig, ModelConfig

GENERATION = frozenset(GenerationConfig.model_fields)
LOADING = frozenset(ModelConfig.model_fields)


class UnusedArgumentWarning(UserWarning):
    """An argument makes no difference to a model that runs in this process."""


def _nothing(value: Any) -> bool:  # noqa: ARG001
    return False


class Unused(NamedTuple):
    """An argument that has no meaning here.

    Attributes:
        reason: Why it has none, and what to do instead.
        neutral: Values that ask for nothing but what happens anyway: they need no warning.
        kept: Whether it has a meaning with its neutral values, and something of it with others.
    """

    reason: str
    neutral: Callable[[Any], bool] = _nothing
    kept: bool = False


def _among(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


_NO_SERVER = "the model runs in this process, and no server is asked"

UNUSED: dict[str, Unused] = {
    # llama-cpp-python
    "n_parts": Unused("a GGUF file knows its parts", _among(-1)),
    "logits_all": Unused("the logits of a prompt are not kept; log probabilities need no option", _among(False)),
    "vocab_only": Unused("the weights are always loaded; they are read when they are used", _among(False)),
    "lora_base": Unused("llama.cpp applies an adapter to the model that is loaded"),
    "embedding": Unused("a model that is loaded once serves all classes", _among(True, False)),
    "device": Unused("choose devices with n_gpu_layers and devices", _among("")),
    "numa": Unused("threads are placed by the system", _among(False, 0)),
    "no_perf": Unused("times are taken anyway", _among(False)),
    "draft_model": Unused("there is no speculative decoding"),
    "chat_format": Unused("the model's own chat template is used; give another one as chat_template"),
    "chat_handler": Unused("the model's own chat template is used; give another one as chat_template"),
    "tokenizer": Unused("the model's own tokenizer is used"),
    "spm_infill": Unused("suffix is appended to the text, not filled in before", _among(False)),
    "pooling_type": Unused("tokens are pooled as the model says, or their mean is taken", _among(-1)),
    "attention_type": Unused("the model says how its tokens attend to each other", _among(-1)),
    # langchain-ollama
    "base_url": Unused(_NO_SERVER),
    "client_kwargs": Unused(_NO_SERVER, _among({})),
    "async_client_kwargs": Unused(_NO_SERVER, _among({})),
    "sync_client_kwargs": Unused(_NO_SERVER, _among({})),
    "keep_alive": Unused(
        "the model stays loaded until close()",
        lambda value: (isinstance(value, int) and value < 0) or (isinstance(value, str) and value.startswith("-")),
    ),
    "reasoning": Unused(
        "the model reasons or not, and has no levels of it; use True or False",
        lambda value: not isinstance(value, str),
        kept=True,
    ),
    "tfs_z": Unused("llama.cpp has no tail-free sampling any more; use min_p or typical_p", _among(1)),
    "validate_model_on_init": Unused("the model is always loaded at construction", _among(True, False)),
    # LangChain's standard parameters of remote models
    "api_key": Unused(_NO_SERVER),
    "timeout": Unused("no time passes on a network; max_tokens limits what a generation takes"),
    "max_retries": Unused("nothing gets lost on the way to the model, and nothing is tried again", _among(0)),
}

UNUSED_IN_CHATS: dict[str, Unused] = UNUSED | {
    "suffix": Unused("nothing is appended to the answer of a chat"),
    "echo": Unused("the answer of a chat does not repeat its messages", _among(False)),
}
_NO_CHAT = "a text is continued as it is, without a chat template; use ChatCyllama"
UNUSED_IN_COMPLETIONS: dict[str, Unused] = UNUSED | {
    name: Unused(_NO_CHAT) for name in ("reasoning", "enable_thinking", "chat_template", "parallel_tool_calls")
}


def _named(name: str, convert: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: convert(value)}


def _if_positive(value: int) -> int | None:
    return value if value > 0 else None


def _seed(value: int) -> int | None:
    return value if 0 <= value < 2**32 - 1 else None


def _one_of(what: str, names: Mapping[int, str | None]) -> Callable[[Any], Any]:
    """Return what turns llama.cpp's numbers into names, and lets names pass."""

    def convert(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if value not in names:
            raise ConfigError(f"{what} is one of {', '.join(map(str, names))}, or its name, not {value}")
        return names[value]

    return convert


def _grammar(value: Any) -> Any:
    """Return the text of a grammar, also of llama-cpp-python's LlamaGrammar."""
    return value if isinstance(value, str) else getattr(value, "_grammar", value)


def read_grammar(path: str | Path) -> str:
    """Return the GBNF that a file holds."""
    return Path(path).read_text(encoding="utf-8")


def _format(value: Any) -> dict[str, Any]:
    return {"response_format": value} if value else {}


_CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 20: "iq4_nl", 30: "bf16"}
_ROPE_SCALING = {-1: None, 0: "none", 1: "linear", 2: "yarn", 3: "longrope"}
_SPLIT_MODES = {0: "none", 1: "layer", 2: "row", 3: "tensor"}

# What is not named here means what cyllama says.
MEANINGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "n_ctx": _named("n_ctx", _if_positive),
    "num_ctx": _named("n_ctx", _if_positive),
    "max_tokens": _named("max_tokens", _if_positive),
    "num_predict": _named("max_tokens", _if_positive),
    "seed": _named("seed", _seed),
    "stop": _named("stop_sequences"),
    "last_n_tokens_size": _named("penalty_last_n"),
    "repeat_last_n": _named("penalty_last_n"),
    "grammar": _named("grammar", _grammar),
    "grammar_path": lambda value: {"grammar": read_grammar(value)},
    "format": _format,
    "reasoning": _named("enable_thinking", bool),
    "n_threads": _named("n_threads", _if_positive),
    "num_thread": _named("n_threads", _if_positive),
    "n_threads_batch": _named("n_threads_batch", _if_positive),
    "num_gpu": _named("n_gpu_layers"),
    "f16_kv": lambda value: {"type_k": "f16", "type_v": "f16"} if value else {"type_k": "f32", "type_v": "f32"},
    "type_k": _named("type_k", _one_of("type_k", _CACHE_TYPES)),
    "type_v": _named("type_v", _one_of("type_v", _CACHE_TYPES)),
    "flash_attn": lambda value: {"flash_attn": value if isinstance(value, str) else "enabled" if value else "disabled"},
    "split_mode": _named("split_mode", _one_of("split_mode", _SPLIT_MODES)),
    "rope_scaling_type": _named("rope_scaling_type", _one_of("rope_scaling_type", _ROPE_SCALING)),
}


def translate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return cyllama's options for arguments by any name. A name that is not known stays as it is.

    >>> translate({"num_ctx": 4096, "num_predict": -1, "use_mlock": True})
    {'n_ctx': 4096, 'max_tokens': None, 'load_mode': 'mmap_mlock'}

    Raises:
        ConfigError: Two names of one option have different values.
        FileNotFoundError: There is no file at ``grammar_path``.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    options: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def put(option: str, value: Any, source: str) -> None:
        if option in options and options[option] != value:
            first, second = (f"{name}={arguments[name]!r:.80}" for name in (sources[option], source))
            raise ConfigError(f"{option} is given twice, as {first} and as {second}: leave one of them out")
        options[option], sources[option] = value, source

    for names, meaning in JOINT_MEANINGS.items():
        values = [given.pop(name, None) for name in names]
        if any(value is not None for value in values):
            for option, value in meaning(*values).items():
                put(option, value, next(name for name in names if arguments.get(name) is not None))
    for name, value in given.items():
        meaning = MEANINGS.get(name)
        for option, converted in (meaning(value) if meaning else {name: value}).items():
            put(option, converted, name)
    return options


def _load_mode(mmap: bool | None, mlock: bool | None) -> dict[str, Any]:
    if mmap is False:
        return {"load_mode": "mlock" if mlock else "none"}
    return {"load_mode": "mmap_mlock" if mlock else "auto"}


def _logprobs(logprobs: bool | int | None, top: int | None) -> dict[str, Any]:
    """Return how many alternatives to report, of a number of them, or of whether to report and of how many."""
    if logprobs is False:
        if top is not None:
            raise ConfigError(f"top_logprobs={top!r} contradicts logprobs=False: leave one of them out")
        return {"logprobs": None}
    if logprobs is None or logprobs is True:
        return {"logprobs": top or 0}
    if top is not None and top != logprobs:
        raise ConfigError(f"logprobs={logprobs!r} contradicts top_logprobs={top!r}: leave one of them out")
    return {"logprobs": logprobs}


# Of what can only be understood together.
JOINT_MEANINGS: dict[tuple[str, ...], Callable[..., dict[str, Any]]] = {
    ("use_mmap", "use_mlock"): _load_mode,
    ("logprobs", "top_logprobs"): _logprobs,
}

CALL_OPTIONS = frozenset({"grammar", "response_format", "chat_template", "enable_thinking", "parallel_tool_calls"})
ARGUMENTS = GENERATION | LOADING | MEANINGS.keys() | CALL_OPTIONS | set(chain(*JOINT_MEANINGS)) | {"model_kwargs"}


def without_unused(owner: str, arguments: Mapping[str, Any], unused: Mapping[str, Unused]) -> dict[str, Any]:
    """Return the arguments that have a meaning, and warn of each that has none."""
    for name, value in arguments.items():
        if name in unused and value is not None and not unused[name].neutral(value):
            warn_unused(owner, name, value, unused[name].reason)
    return {name: value for name, value in arguments.items() if name not in unused or unused[name].kept}


def warn_unused(owner: str, name: str, value: Any, reason: str) -> None:
    """Say that an argument makes no difference, at the line of the program that gave it."""
    shown = "..." if name == "api_key" else f"{value!r:.80}"
    message = f"{owner}({name}={shown}) makes no difference: {reason}"
    warnings.warn(message, UnusedArgumentWarning, stacklevel=_levels_to_the_program() + 1)


def _levels_to_the_program() -> int:
    """Return how many frames above the caller the first one is that belongs to no library of this stack."""
    levels, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _LIBRARIES:
        levels, frame = levels + 1, frame.f_back
    return levels


_LIBRARIES = (
    __name__.split(".")[0],
    "langchain_core",
    "langgraph",
    "pydantic",
    "concurrent",
    "threading",
    "contextvars",
)
