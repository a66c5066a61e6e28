"""From llama-cpp-python's arguments to the options of :class:`LLM`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from ..embedding_texts import pooling_of
from ..errors import CompatibilityError, ConfigError
from ..llama.llama_cpp import LlamaPoolingType
from ..llm import LLM
from .grammar import LlamaGrammar

CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 20: "iq4_nl", 30: "bf16"}
ROPE_SCALING = {-1: None, 0: "none", 1: "linear", 2: "yarn", 3: "longrope"}
SPLIT_MODES = {0: "none", 1: "layer", 2: "row", 3: "tensor"}
RANDOM_SEED = 2**32 - 1  # LLAMA_DEFAULT_SEED

#: Names of chat formats whose templates have another name in llama.cpp.
CHAT_FORMATS = {
    "chatml-function-calling": "chatml",
    "llama-2": "llama2-sys",
    "llama-3": "llama3",
    "mistral-instruct": "mistral-v1",
    "qwen": "chatml",
}

#: What an argument that cannot be followed needs instead.
INSTEAD = {
    "chat_handler": "projector names the file that reads images; chat_format takes a template, and tools need none",
    "draft_model": 'speculation="lookup" is LlamaPromptLookupDecoding; LLM(draft_model=...) takes the file of a model',
    "local_dir": "downloads go to the cache that all tools share; cache_dir names another one",
    "logits_processor": "grammar, response_format and logit_bias restrict what is sampled",
    "lora_base": "an adapter is applied to the model's own weights: leave it out",
    "spm_infill": "write the prompt in the model's own format for infilling",
    "stopping_criteria": "stop and max_tokens end a text, and so does close() of its stream",
    "suffix": "write the prompt in the model's own format for infilling",
    "tokenizer": "the tokenizer of the model's file is used",
    "vocab_only": "a model is always loaded with its weights, which are read when they are used",
}

#: Arguments without effect: what they ask for is not needed, or always done.
WITHOUT_EFFECT = (
    "embedding",
    "logits_all",
    "no_perf",
    "numa",
    "additional_files",
    "local_dir_use_symlinks",
    "pooling_type",
)

#: The values that mean "as the model says", which is the only way here.
AS_THE_MODEL_SAYS = {"attention_type": -1}


class CompletionOptions(TypedDict, total=False):
    """What :meth:`Llama.create_completion` takes besides the prompt and `stream`."""

    suffix: str | None
    max_tokens: int | None
    temperature: float
    top_p: float
    min_p: float
    typical_p: float
    logprobs: int | None
    echo: bool
    stop: str | Sequence[str] | None
    frequency_penalty: float
    presence_penalty: float
    repeat_penalty: float
    top_k: int
    seed: int | None
    tfs_z: float
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float
    model: str | None
    stopping_criteria: Any
    logits_processor: Any
    grammar: LlamaGrammar | str | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    n: int


class ChatOptions(TypedDict, total=False):
    """What :meth:`Llama.create_chat_completion` takes besides the messages and `stream`."""

    functions: Sequence[Mapping[str, Any]] | None
    function_call: str | Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    stop: str | Sequence[str] | None
    seed: int | None
    response_format: Mapping[str, Any] | None
    max_tokens: int | None
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    tfs_z: float
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float
    model: str | None
    logits_processor: Any
    grammar: LlamaGrammar | str | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    logprobs: bool | None
    top_logprobs: int | None
    n: int


def refuse(name: str) -> CompatibilityError:
    """Return the error for an argument that cannot be followed."""
    return CompatibilityError(f"{name} cannot be used with cyllama: {INSTEAD[name]}")


def check_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that have a value and an effect.

    Raises:
        CompatibilityError: One of them cannot be followed.
    """
    for name in INSTEAD.keys() & given.keys():
        if given[name]:
            raise refuse(name)
    for name, value in AS_THE_MODEL_SAYS.items():
        if given.get(name, value) not in (value, None):
            raise CompatibilityError(f"{name}={given[name]!r} cannot be chosen: the model's file decides")
    ignored = {*INSTEAD, *WITHOUT_EFFECT, *AS_THE_MODEL_SAYS}
    return {name: value for name, value in given.items() if value is not None and name not in ignored}


# -------------------- loading


def loading_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an :class:`LLM` for the arguments of a `Llama`.

    Raises:
        CompatibilityError: An argument cannot be followed.
        ConfigError: A number stands for no value of its option.
    """
    given = check_arguments(arguments)
    for name, names in (
        ("type_k", CACHE_TYPES),
        ("type_v", CACHE_TYPES),
        ("split_mode", SPLIT_MODES),
        ("rope_scaling_type", ROPE_SCALING),
    ):
        if name in given:
            given[name] = by_name(name, given[name], names)
    if isinstance(given.get("flash_attn"), bool):
        given["flash_attn"] = "enabled" if given["flash_attn"] else "disabled"
    mmap, mlock = given.pop("use_mmap", True), given.pop("use_mlock", False)
    if mlock or not mmap:
        given["load_mode"] = ("mmap_mlock" if mlock else "mmap") if mmap else ("mlock" if mlock else "none")
    if "last_n_tokens_size" in given:
        given["penalty_last_n"] = given.pop("last_n_tokens_size")
    if "seed" in given:
        given["seed"] = seed_of(given["seed"])
    return given


def check_pooling(wanted: int | None, llm: LLM) -> None:
    """Check that embeddings are pooled as a program wants it; -1 and `None` stand for what the model's file says.

    Raises:
        CompatibilityError: They are not.
    """
    if wanted in (None, LlamaPoolingType.UNSPECIFIED):
        return
    pooling = pooling_of(llm.model, llm.model_config, llm.model_name)
    if wanted != pooling:
        key = f"{llm.model.metadata.get('general.architecture')}.pooling_type"
        raise CompatibilityError(
            f"pooling_type={wanted!r} cannot be chosen: this model pools by pooling_type={pooling.value} "
            f"({pooling.name}); kv_overrides={{{key!r}: {wanted!r}}} loads it as if its file said so"
        )


def by_name(option: str, value: Any, names: Mapping[int, str | None]) -> Any:
    """Return the name that one of llama.cpp's numbers stands for; names are returned unchanged."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if value not in names:
        numbers = ", ".join(f"{number} ({name})" for number, name in names.items())
        raise ConfigError(f"{option} is one of {numbers}, not {value}")
    return names[value]


def template_of(chat_format: str | None) -> str | None:
    """Return the chat template that a chat format means; ``None`` for the model's own."""
    return None if chat_format is None else CHAT_FORMATS.get(chat_format, chat_format)


def seed_of(seed: int | None) -> int | None:
    """Return the seed that a number means; ``None`` for a new one in every generation."""
    return None if seed is None or seed < 0 or seed == RANDOM_SEED else seed % RANDOM_SEED


# -------------------- calls


def generation_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a generation for the arguments of a completion or a chat.

    Raises:
        CompatibilityError: An argument cannot be followed.
    """
    given = check_arguments(arguments)
    if given.pop("tfs_z", 1.0) != 1.0:
        raise CompatibilityError("tfs_z cannot be used: llama.cpp has no tail-free sampling any more; try min_p")
    limit = arguments.get("max_tokens")
    given["max_tokens"] = None if limit is None or limit <= 0 else limit
    if "seed" in given:
        given["seed"] = seed_of(given["seed"])
    if "mirostat_mode" in given:
        given["mirostat"] = given.pop("mirostat_mode")
    if given.get("temperature", 0) < 0:  # the model's own distribution, without any other option
        given |= {"temperature": 1.0, "samplers": ("temperature",)}
    if "logit_bias" in given:
        given["logit_bias"] = {int(token): float(bias) for token, bias in given["logit_bias"].items()}
    if "grammar" in given:
        given["grammar"] = getattr(given["grammar"], "_grammar", given["grammar"])
    return given


def chat_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of :meth:`LLM.chat` for the arguments of a chat.

    Raises:
        CompatibilityError: An argument cannot be followed.
        ConfigError: There are both tools and functions, or `top_logprobs` without `logprobs`.
    """
    given = generation_options(arguments)
    functions, call = given.pop("functions", None), given.pop("function_call", None)
    if functions is not None:
        if "tools" in given:
            raise ConfigError("functions is the old name of tools: pass one of them")
        given["tools"] = [{"type": "function", "function": function} for function in functions]
    if call is not None:
        given["tool_choice"] = call if isinstance(call, str) else {"type": "function", "function": dict(call)}
    wanted, top = given.pop("logprobs", None), given.pop("top_logprobs", None)
    if top is not None and not wanted:
        raise ConfigError(f"top_logprobs={top!r} needs logprobs=True")
    if wanted:
        given["logprobs"] = top or 0
    return given


def refuse_several(n: int) -> None:
    """Check that a stream is one of one text.

    Raises:
        CompatibilityError: It is not.
    """
    if n != 1:
        raise CompatibilityError(f"n={n} cannot be used with stream=True: read several streams, in threads or in turns")
