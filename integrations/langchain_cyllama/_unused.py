"""Arguments that have no effect on a model in this process, and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cyllama.callers import levels_to_the_program

from ._arguments import CHAT_OPTIONS, GENERATION_ARGUMENTS


class UnusedArgumentWarning(UserWarning):
    """An argument has no effect on a model that runs in this process."""


def _nothing(_value: Any) -> bool:
    return False


class Unused(NamedTuple):
    """An argument that has no effect.

    Attributes:
        reason: Why it has none, and what to use instead.
        neutral: Whether a value asks for the only possible behaviour, and so needs no warning.
    """

    reason: str
    neutral: Callable[[Any], bool] = _nothing


def _among(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


_NO_SERVER = "the model runs in this process, and no server is asked"

UNUSED: dict[str, Unused] = {
    # llama-cpp-python
    "n_parts": Unused("a GGUF file knows its parts", _among(-1)),
    "logits_all": Unused("the logits of a prompt are not kept; log probabilities need no option", _among(False)),
    "vocab_only": Unused("the weights are always loaded; they are read when they are used", _among(False)),
    "lora_base": Unused("an adapter is applied to the model's own weights, quantized or not"),
    "embedding": Unused("a model that is loaded once serves all classes", _among(True, False)),
    "device": Unused("choose devices with n_gpu_layers and devices", _among("")),
    "numa": Unused("threads are placed by the system", _among(False, 0)),
    "no_perf": Unused("times are taken anyway", _among(False)),
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
    "tfs_z": Unused("llama.cpp has no tail-free sampling any more; use min_p or typical_p", _among(1)),
    "validate_model_on_init": Unused("the model is always loaded at construction", _among(True, False)),
    # LangChain's standard parameters of remote models
    "api_key": Unused(_NO_SERVER),
    "timeout": Unused("no time passes on a network; max_tokens limits what a generation takes"),
    "max_retries": Unused("nothing gets lost on the way to the model, and nothing is tried again", _among(0)),
}

_MAY_BE_SECRET = {"api_key", "base_url", "client_kwargs", "async_client_kwargs", "sync_client_kwargs"}

UNUSED_IN_CHATS: dict[str, Unused] = UNUSED | {
    "suffix": Unused("nothing is appended to the answer of a chat"),
    "echo": Unused("the answer of a chat does not repeat its messages", _among(False)),
}
_NO_CHAT = "a text is continued as it is, without a chat template; use ChatCyllama"
UNUSED_IN_COMPLETIONS: dict[str, Unused] = UNUSED | {
    name: Unused(_NO_CHAT) for name in ("reasoning", *sorted(CHAT_OPTIONS))
}

_NOT_GENERATED = "it is an option of generated text, and no text is generated here"
UNUSED_IN_EMBEDDINGS: dict[str, Unused] = {
    name: Unused(_NOT_GENERATED) for name in GENERATION_ARGUMENTS - {"n_ctx", "num_ctx", "n_batch"}
}
UNUSED_IN_EMBEDDINGS |= UNUSED | {
    "seed": Unused(_NOT_GENERATED, lambda value: value < 0),
    "suffix": Unused(_NOT_GENERATED),
    "echo": Unused(_NOT_GENERATED, _among(False)),
    "reasoning": Unused(_NOT_GENERATED),
    "streaming": Unused(_NOT_GENERATED, _among(False)),
}


def without_unused(owner: str, arguments: Mapping[str, Any], unused: Mapping[str, Unused]) -> dict[str, Any]:
    """Return the arguments that have an effect, and warn of each that has none."""
    for name, value in arguments.items():
        if name in unused and value is not None and not unused[name].neutral(value):
            warn_unused(owner, name, value, unused[name].reason)
    return {name: value for name, value in arguments.items() if name not in unused}


def warn_unused(owner: str, name: str, value: Any, reason: str) -> None:
    """Warn that an argument has no effect, at the line of the program that passed it."""
    shown = "..." if name in _MAY_BE_SECRET else f"{value!r:.80}"
    message = f"{owner}({name}={shown}) makes no difference: {reason}"
    warnings.warn(message, UnusedArgumentWarning, stacklevel=levels_to_the_program() + 1)
