"""The meaning of arguments, by cyllama's names and by those of other providers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from cyllama import ConfigError, GenerationConfig, ModelConfig
from cyllama.models import expand_user, path_exists

from ._fields import ChatFields

GENERATION = frozenset(GenerationConfig.model_fields)
LOADING = frozenset(ModelConfig.model_fields)
CHAT_OPTIONS = frozenset(ChatFields.model_fields)
CALL_OPTIONS = frozenset({"grammar", "response_format"}) | CHAT_OPTIONS

#: Converts the value of an argument to options of cyllama.
Meaning: TypeAlias = Callable[[Any], dict[str, Any]]


def _named(name: str, convert: Callable[[Any], Any] = lambda value: value) -> Meaning:
    return lambda value: {name: convert(value)}


def _if_positive(value: int) -> int | None:
    return value if value > 0 else None


def _seed(value: int) -> int | None:
    return value if 0 <= value < 2**32 - 1 else None


def _one_of(what: str, names: Mapping[int, str | None]) -> Callable[[Any], Any]:
    """Return a function that converts llama.cpp's numbers to names, and returns names unchanged."""

    def convert(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if value not in names:
            raise ConfigError(
                f"{what} is one of {', '.join(f'{n} ({name})' for n, name in names.items())}, not {value}"
            )
        return names[value]

    return convert


def _grammar(value: Any) -> Any:
    """Return the text of a grammar, which may be a `LlamaGrammar` of llama-cpp-python."""
    return value if isinstance(value, str) else getattr(value, "_grammar", value)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file, so that it stays valid when the process changes its folder.

    A path without a file is returned unchanged.
    """
    full = Path(expand_user(path)).absolute()
    return str(full) if path_exists(full) else os.fspath(path)


def absolute_paths(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the absolute paths of the files that they name."""
    result = dict(arguments)
    for name in _PATHS & result.keys():
        if isinstance(result[name], (str, os.PathLike)):
            result[name] = absolute_path(result[name])
    if isinstance(adapters := result.get("lora"), Mapping):
        result["lora"] = {
            absolute_path(name) if isinstance(name, (str, os.PathLike)) else name: scale
            for name, scale in adapters.items()
        }
    if isinstance(more := result.get("model_kwargs"), Mapping):
        result["model_kwargs"] = absolute_paths(more)
    return result


_PATHS = frozenset({"model_path", "model", "draft_model", "lora_path", "grammar_path"})


def read_grammar(path: str | Path) -> str:
    """Return the GBNF in a file."""
    return Path(path).read_text(encoding="utf-8")


def _format(value: Any) -> dict[str, Any]:
    return {"response_format": value} if value else {}


def _reasoning(value: Any) -> dict[str, Any]:
    """Return the reasoning options for ChatOllama's bool or level, or for OpenAI's dict with an effort."""
    if isinstance(value, Mapping):
        return {} if value.get("effort") is None else {"reasoning_effort": value["effort"]}
    return {"reasoning_effort": value} if isinstance(value, str) else {"enable_thinking": bool(value)}


def _flash_attn(value: str | bool) -> str:
    return value if isinstance(value, str) else "enabled" if value else "disabled"


def _load_mode(mmap: bool | None, mlock: bool | None) -> dict[str, Any]:
    if mmap is False:
        return {"load_mode": "mlock" if mlock else "none"}
    return {"load_mode": "mmap_mlock" if mlock else "auto"}


def _logprobs(logprobs: bool | int | None, top: int | None) -> dict[str, Any]:
    """Return the number of alternatives, given as a number, or as a bool and a number."""
    if logprobs is False:
        if top is not None:
            raise ConfigError(f"top_logprobs={top!r} contradicts logprobs=False: leave one of them out")
        return {"logprobs": None}
    if logprobs is None or logprobs is True:
        return {"logprobs": top or 0}
    if top is not None and top != logprobs:
        raise ConfigError(f"logprobs={logprobs!r} contradicts top_logprobs={top!r}: leave one of them out")
    return {"logprobs": logprobs}


def _lora(path: str | Path | None, scale: float | None) -> dict[str, Any]:
    return {} if path is None else {"lora": {os.fspath(path): 1.0 if scale is None else scale}}


_CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 20: "iq4_nl", 30: "bf16"}
_ROPE_SCALING = {-1: None, 0: "none", 1: "linear", 2: "yarn", 3: "longrope"}
_SPLIT_MODES = {0: "none", 1: "layer", 2: "row", 3: "tensor"}

# Arguments in none of these tables have the meaning of cyllama's option of that name.
GENERATION_MEANINGS: dict[str, Meaning] = {
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
    "reasoning": _reasoning,
}
LOADING_MEANINGS: dict[str, Meaning] = {
    "n_threads": _named("n_threads", _if_positive),
    "num_thread": _named("n_threads", _if_positive),
    "n_threads_batch": _named("n_threads_batch", _if_positive),
    "num_gpu": _named("n_gpu_layers"),
    "f16_kv": lambda value: dict.fromkeys(("type_k", "type_v"), "f16" if value else "f32"),
    "type_k": _named("type_k", _one_of("type_k", _CACHE_TYPES)),
    "type_v": _named("type_v", _one_of("type_v", _CACHE_TYPES)),
    "flash_attn": _named("flash_attn", _flash_attn),
    "split_mode": _named("split_mode", _one_of("split_mode", _SPLIT_MODES)),
    "rope_scaling_type": _named("rope_scaling_type", _one_of("rope_scaling_type", _ROPE_SCALING)),
}
MEANINGS = GENERATION_MEANINGS | LOADING_MEANINGS

# Arguments that are converted together.
JOINT_MEANINGS: dict[tuple[str, ...], Callable[..., dict[str, Any]]] = {
    ("use_mmap", "use_mlock"): _load_mode,
    ("logprobs", "top_logprobs"): _logprobs,
    ("lora_path", "lora_scale"): _lora,
}

LOADING_ARGUMENTS = LOADING | LOADING_MEANINGS.keys() | {"use_mmap", "use_mlock"}
GENERATION_ARGUMENTS = (
    GENERATION | GENERATION_MEANINGS.keys() | CALL_OPTIONS | {"top_logprobs", "lora_path", "lora_scale"}
)
ARGUMENTS = LOADING_ARGUMENTS | GENERATION_ARGUMENTS | {"model_kwargs"}


def translate(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return cyllama's options for arguments by any name. Unknown names stay as they are.

    >>> translate({"num_ctx": 4096, "num_predict": -1, "use_mlock": True})
    {'load_mode': 'mmap_mlock', 'n_ctx': 4096, 'max_tokens': None}

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


_NO_REASONING = {"reasoning_effort": "none", "reasoning_budget": 0}


def override(own: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return options, overridden by those of a call. An option of the call also removes those that contradict it.

    Variables of the template are merged one by one.
    """
    own = dict(own)
    if "grammar" in over or "response_format" in over:  # each of them excludes the other
        own.pop("grammar", None)
        own.pop("response_format", None)
    given = {**over.get("chat_template_kwargs", {}), **over}
    if given.get("enable_thinking"):
        own = {name: value for name, value in own.items() if _NO_REASONING.get(name, _NO_REASONING) != value}
    if any(given.get(name) == value for name, value in _NO_REASONING.items()):
        own.pop("enable_thinking", None)
    variables = {name: value for name, value in own.pop("chat_template_kwargs", {}).items() if name not in given}
    own = {name: value for name, value in own.items() if name not in given}
    if variables:
        over = {**over, "chat_template_kwargs": {**variables, **over.get("chat_template_kwargs", {})}}
    return {**own, **over}
