"""What can be configured: how a model is loaded, and how text is generated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from typing_extensions import Self

from .errors import ConfigError, ConfigTypeError

MAX_TOKENS_LIMIT = 2**31 - 1024  # llama.cpp counts tokens in int32
MAX_PARALLEL = 120  # llama.cpp has 256 sequences, and idle ones need some
MAX_HISTORY = 2**24  # tokens that a sampler may look back at
MAX_LOGPROBS = 1000  # alternatives that are kept of every token

FLOAT_MAX = 3.4e38  # llama.cpp computes in float32

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=FLOAT_MAX, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-FLOAT_MAX, le=FLOAT_MAX, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=2**20)]
Sampler = Literal["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """A frozen set of options that checks its values when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, /, **options: Any) -> None:
        """Raise :class:`ConfigError` for a value out of range and :class:`ConfigTypeError` for an unknown option."""
        check_option_names(type(self).__name__, options, type(self).model_fields)
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigError(_describe(type(self).__name__, error)) from None

    def merge(self, **overrides: Any) -> Self:
        """Return a copy with some options replaced, checked like the original.

        >>> GenerationConfig(seed=1).merge(temperature=0).seed
        1
        """
        if not overrides:
            return self
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | overrides)


class GenerationConfig(Config):
    r"""How text is generated. The sampling defaults are llama.cpp's, or what the model's file recommends.

    Every option can also be given to ``LLM(...)`` and to a single call by its name.

    >>> GenerationConfig(temperature=0, max_tokens=64, stop_sequences=["\n"])
    GenerationConfig(max_tokens=64, temperature=0.0, stop_sequences=('\n',))

    Attributes:
        max_tokens: Most tokens to generate; ``None`` goes on to the end of the context.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens whose probabilities add up to this; 1 keeps all.
        min_p: Keep tokens at least this times as likely as the most likely one; 0 keeps all.
        typical_p: Locally typical sampling; 1 turns it off.
        repeat_penalty: Divides the logits of tokens seen in the last ``penalty_last_n``; 1 turns it off.
        penalty_last_n: Tokens, prompt included, that the three penalties look back at; -1 for the whole context.
        frequency_penalty: Subtracted from a token's logit for every time it was seen.
        presence_penalty: Subtracted from a token's logit once if it was seen.
        dry_multiplier: Strength of the DRY penalty for repeated sequences; 0 turns it off.
        dry_base: Its growth with the length of the repetition.
        dry_allowed_length: Length of repetition that is not penalised.
        dry_penalty_last_n: Tokens that it looks back at; -1 for the whole context.
        dry_sequence_breakers: Strings that end a repetition.
        xtc_probability: Chance of excluding the top choices; 0 turns it off.
        xtc_threshold: Probability above which a token is a top choice.
        top_n_sigma: Keep tokens within this many standard deviations of the best logit; 0 or less turns it off.
        samplers: Which of the methods above are applied, and in which order, by llama.cpp's names; the others are off.
        mirostat: 1 or 2 select with a target surprise instead of the methods above; 0 turns it off.
        mirostat_tau: The target surprise, in bits.
        mirostat_eta: How fast it is approached.
        seed: Makes a generation reproducible, from 0 to 2**32 - 2; ``None`` draws a new seed every time.
        stop_sequences: Generation ends before the first of these.
        logit_bias: Added to the logits of these token ids; ``-inf`` forbids a token.
        ignore_eos: Never end by an end-of-generation token.
        logprobs: Report the log probability of every token, and those of so many of the likeliest ones in its place;
            ``None`` reports nothing.
        n_ctx: Size of the context in tokens, prompt and answer together; ``None`` sizes it by need.
        n_batch: Most tokens of the prompt that are evaluated in one step.
        add_bos: Whether a prompt starts with the beginning-of-sequence token; ``None`` does as the model says.
        parse_special: Whether the text of control tokens in a prompt, such as ``<|im_end|>``, means the token.
        lora: Scales of LoRA adapters by the names that :meth:`LLM.load_lora` gave them; 0 leaves one out.
    """

    max_tokens: Count | None = 512
    temperature: NonNegative = 0.8
    top_k: Count = 40
    top_p: Probability = 0.95
    min_p: Probability = 0.05
    typical_p: Probability = 1.0
    repeat_penalty: Annotated[float, Field(gt=0, le=FLOAT_MAX, allow_inf_nan=False)] = 1.0
    penalty_last_n: Annotated[int, Field(ge=-1, le=MAX_HISTORY)] = 64
    frequency_penalty: Finite = 0.0
    presence_penalty: Finite = 0.0
    dry_multiplier: NonNegative = 0.0
    dry_base: NonNegative = 1.75
    dry_allowed_length: Annotated[int, Field(ge=0, le=MAX_HISTORY)] = 2
    dry_penalty_last_n: Annotated[int, Field(ge=-1, le=MAX_HISTORY)] = 64
    dry_sequence_breakers: Sequence[Text] = ("\n", ":", '"', "*")
    xtc_probability: Probability = 0.0
    xtc_threshold: Probability = 0.1
    top_n_sigma: Finite = -1.0
    samplers: Sequence[Sampler] = SAMPLERS
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: NonNegative = 5.0
    mirostat_eta: NonNegative = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] | None = None
    stop_sequences: Sequence[Text] = ()
    logit_bias: dict[Annotated[int, Field(ge=0, strict=False)], float] = Field(default_factory=dict)
    ignore_eos: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    n_ctx: PositiveCount | None = None
    n_batch: PositiveCount = 2048
    add_bos: bool | None = None
    parse_special: bool = True
    lora: dict[Text, Finite] = Field(default_factory=dict)

    @field_validator("samplers", mode="before")
    @classmethod
    def _a_list_of_samplers(cls, value: Any) -> Any:
        return _to_tuple(value)

    @field_validator("stop_sequences", "dry_sequence_breakers", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else _to_tuple(value)

    @field_validator("logit_bias")
    @classmethod
    def _biases_are_numbers(cls, value: dict[int, float]) -> dict[int, float]:
        for token, bias in value.items():
            if bias != bias:
                raise ValueError(f"the bias of token {token} is not a number")
        return value

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what differs from the defaults."""
        return [(name, value) for name, value in super().__repr_args__() if name in self.model_fields_set]


class ModelConfig(Config):
    """How a model is loaded and computed. The names are llama.cpp's, and so are the defaults.

    >>> ModelConfig(n_gpu_layers=0, n_threads=4, type_k="q8_0").n_threads
    4

    Attributes:
        n_gpu_layers: Layers to keep on the GPU; -1 for all. Without a GPU in the build it has no effect.
        main_gpu: The GPU to use when ``split_mode`` is "none".
        split_mode: How several GPUs share the model.
        tensor_split: Share of the model for each GPU; empty to decide by free memory.
        devices: Names of the devices to use, as ``cyllama info`` shows them; empty for all.
        load_mode: How the file is read; "auto" maps it into memory where that is possible.
        check_tensors: Validate the weights while loading.
        kv_overrides: Metadata values to use instead of the file's.
        n_threads: Threads for single tokens; ``None`` for the physical cores that the process may use.
        n_threads_batch: Threads for prompts; ``None`` for as many as ``n_threads``.
        threadpool_poll: How eagerly idle threads wait for work, from 0 (sleep) to 100 (spin).
        n_ubatch: Most tokens that are computed at once.
        n_parallel: Most generations that take part in a step; others wait in line.
        max_sessions: Most conversations that are remembered; the one unused for the longest is forgotten.
        kv_cells: Tokens that the KV caches of all conversations in the context have room for together; ``None`` for as
            many as the running generations need, growing, and some for conversations that take turns. llama.cpp rounds
            it up to 256.
        host_cache_mb: Most host memory, in MiB, for the KV caches of conversations that left the context; 0 keeps none.
        flash_attn: When to use flash attention.
        type_k: Data type of the K cache.
        type_v: Data type of the V cache; a quantized one needs flash attention.
        offload_kqv: Keep the KV cache on the GPU.
        op_offload: Compute large operations of layers in host memory on the GPU.
        swa_full: Keep all tokens of sliding-window layers, not only the window.
        rope_scaling_type: How RoPE is scaled; ``None`` as the model says.
        rope_freq_base: RoPE base frequency; 0 as the model says.
        rope_freq_scale: RoPE frequency scale; 0 as the model says.
        yarn_ext_factor: YaRN extrapolation mix; negative as the model says.
        yarn_attn_factor: YaRN magnitude scale; negative as the model says.
        yarn_beta_fast: YaRN low correction dimension; negative as the model says.
        yarn_beta_slow: YaRN high correction dimension; negative as the model says.
        yarn_orig_ctx: YaRN original context size; 0 as the model says.
    """

    n_gpu_layers: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    main_gpu: Annotated[int, Field(ge=0, lt=2**31)] = 0
    split_mode: Literal["none", "layer", "row", "tensor"] = "layer"
    tensor_split: Sequence[NonNegative] = ()
    devices: Sequence[Text] = ()
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap_mlock", "direct_io"] = "auto"
    check_tensors: bool = False
    kv_overrides: dict[
        Annotated[str, Field(max_length=127)], bool | int | float | Annotated[str, Field(max_length=127)]
    ] = Field(default_factory=dict)
    n_threads: Annotated[int, Field(ge=1, le=512)] | None = None
    n_threads_batch: Annotated[int, Field(ge=1, le=512)] | None = None
    threadpool_poll: Annotated[int, Field(ge=0, le=100)] = 50
    n_ubatch: PositiveCount = 512
    n_parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 4
    max_sessions: PositiveCount = 256
    kv_cells: PositiveCount | None = None
    host_cache_mb: Annotated[int, Field(ge=0, le=2**40)] = 1024
    flash_attn: Literal["auto", "disabled", "enabled"] = "auto"
    type_k: CacheType = "f16"
    type_v: CacheType = "f16"
    offload_kqv: bool = True
    op_offload: bool = True
    swa_full: bool = False
    rope_scaling_type: Literal["none", "linear", "yarn", "longrope"] | None = None
    rope_freq_base: NonNegative = 0.0
    rope_freq_scale: NonNegative = 0.0
    yarn_ext_factor: Finite = -1.0
    yarn_attn_factor: Finite = -1.0
    yarn_beta_fast: Finite = -1.0
    yarn_beta_slow: Finite = -1.0
    yarn_orig_ctx: Count = 0

    @field_validator("tensor_split", "devices", mode="before")
    @classmethod
    def _a_list_will_do(cls, value: Any) -> Any:
        return _to_tuple(value)


#: Options of a generation, as calls take them.
ConfigLike: TypeAlias = GenerationConfig | Mapping[str, Any] | None


def as_config(kind: type[ConfigT], value: Any) -> ConfigT:
    """Return ``value`` as a config: itself, one made from a mapping of options, or the defaults for ``None``.

    Raises:
        ConfigTypeError: It is something else.
    """
    if value is None:
        return kind()
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        return kind(**value)
    raise ConfigTypeError(
        f"expected a {kind.__name__} or a dict of its options, not {type(value).__name__}: {value!r:.80}"
    )


def check_option_names(owner: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise :class:`ConfigTypeError` for the first unknown name, suggesting the nearest known one."""
    known = list(known)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            if name in ModelConfig.model_fields:
                hint = ": it belongs to ModelConfig, and to LLM(...)"
            raise ConfigTypeError(f"{owner} has no option {name!r}{hint}")


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _describe(owner: str, error: ValidationError) -> str:
    """One line for each wrong value, with the value itself."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in item["loc"])
        lines.append(f"{owner}.{path}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r:.80}")
    return "\n".join(lines)
