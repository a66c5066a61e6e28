"""What can be configured: how a model is loaded, and how text is generated.

This is the one place where these options are declared. After a change, `make options` writes the files that are
generated from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from typing_extensions import Self

from .declaration import as_draft_name, as_path_text, describe_errors, documented, none_values, option, other_names
from .errors import ConfigError, ConfigTypeError
from .option_names import hint_for

MAX_TOKENS_LIMIT = 2**31 - 1024  # llama.cpp counts tokens in int32
MAX_PARALLEL = 120  # llama.cpp has 256 sequences, and idle ones need some
MAX_HISTORY = 2**24  # tokens that a sampler may look back at
MAX_LOGPROBS = 1000  # alternatives that are kept of every token

FLOAT_MAX = 3.4e38  # llama.cpp computes in float32

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)]
LookBack = Annotated[int, Field(ge=-1, le=MAX_HISTORY)]
Threads = Annotated[int, Field(ge=1, le=512)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=FLOAT_MAX, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=FLOAT_MAX, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-FLOAT_MAX, le=FLOAT_MAX, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=2**20)]
MetadataText = Annotated[str, Field(max_length=127)]
Sampler = Literal["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
ConfigT = TypeVar("ConfigT", bound="Config")

_PENALTIES = "llama_sampler_init_penalties"
_DRY = "llama_sampler_init_dry; oobabooga/text-generation-webui#5677, ggml-org/llama.cpp#9702"
_XTC = "llama_sampler_init_xtc; oobabooga/text-generation-webui#6335, ggml-org/llama.cpp#9742"
_MIROSTAT = "llama_sampler_init_mirostat, llama_sampler_init_mirostat_v2; Basu et al. 2020, arXiv:2007.14966"
_MODEL, _CONTEXT = "llama_model_params", "llama_context_params"  # the parameter of the same name
_YARN = f"{_CONTEXT}; Peng et al. 2023, arXiv:2309.00071"
_AS_THE_MODEL = "as the model says"


class Config(BaseModel):
    """A frozen set of options that checks its values when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, /, **options: Any) -> None:
        """Check the options.

        >>> GenerationConfig(temperature=-1)
        Traceback (most recent call last):
        cyllama.errors.ConfigError: GenerationConfig.temperature: input should be greater than or equal to 0, not -1

        Args:
            **options: Options by name; those that are left out have their defaults.

        Raises:
            ConfigError: A value is out of range.
            ConfigTypeError: There is no such option.
        """
        options = by_own_names(options)
        check_option_names(type(self).__name__, options, type(self).model_fields)
        for name, values in none_values(type(self)).items():
            if type(options.get(name)) is int and options[name] in values:
                options[name] = None
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigError(describe_errors(type(self).__name__, error)) from None

    def merge(self, **overrides: Any) -> Self:
        """Return a copy with some options replaced, checked like the original.

        >>> GenerationConfig(seed=1, top_k=20).merge(top_k=0)
        GenerationConfig(top_k=0, seed=1)

        Args:
            **overrides: Options by name.

        Returns:
            The copy; without ``overrides``, this config.

        Raises:
            ConfigError: A value is out of range.
            ConfigTypeError: There is no such option.
        """
        if not overrides:
            return self
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | by_own_names(overrides))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the options that were given.

        >>> ModelConfig(n_parallel=8)
        ModelConfig(n_parallel=8)
        """
        return [(name, value) for name, value in super().__repr_args__() if name in self.model_fields_set]


@documented
class GenerationConfig(Config):
    r"""How text is generated. The sampling defaults are llama.cpp's, or what the model's file recommends.

    Every option can also be given to ``LLM(...)`` and to a single call by its name.

    >>> GenerationConfig(temperature=0, max_tokens=64, stop_sequences=["\n"])
    GenerationConfig(max_tokens=64, temperature=0.0, stop_sequences=('\n',))
    >>> GenerationConfig().temperature
    0.8
    """

    max_tokens: Count | None = option(
        512,
        "Most tokens to generate.",
        none="generation goes on to the end of the context",
        none_values=(-1,),
        unit="tokens",
    )
    temperature: NonNegative = option(
        0.8,
        "Divides the logits before a token is sampled; 0 always takes the most likely token.",
        source="llama_sampler_init_temp",
    )
    top_k: Count = option(
        40,
        "Keep the k most likely tokens; 0 keeps all.",
        unit="tokens",
        source="llama_sampler_init_top_k; Fan et al. 2018, arXiv:1805.04833",
    )
    top_p: Probability = option(
        0.95,
        "Keep the most likely tokens whose probabilities add up to this (nucleus sampling); 1 keeps all.",
        unit="probability",
        source="llama_sampler_init_top_p; Holtzman et al. 2019, arXiv:1904.09751",
    )
    min_p: Probability = option(
        0.05,
        "Keep the tokens that are at least this times as likely as the most likely one; 0 keeps all.",
        unit="ratio of probabilities",
        source="llama_sampler_init_min_p; Nguyen et al. 2024, arXiv:2407.01082",
    )
    typical_p: Probability = option(
        1.0,
        "Keep the most typical tokens whose probabilities add up to this (locally typical sampling); 1 keeps all.",
        unit="probability",
        source="llama_sampler_init_typical; Meister et al. 2022, arXiv:2202.00666",
    )
    repeat_penalty: Positive = option(
        1.0,
        "Divides a positive logit of a token seen in the last `penalty_last_n`, and multiplies a negative one; 1 turns "
        "it off.",
        source=f"{_PENALTIES}; Keskar et al. 2019, arXiv:1909.05858",
    )
    penalty_last_n: LookBack = option(
        64,
        "How many of the last tokens, prompt included, the three penalties look at; -1 for the whole context.",
        unit="tokens",
        source=_PENALTIES,
    )
    frequency_penalty: Finite = option(
        0.0, "Subtracted from a token's logit for every time that it was seen.", unit="logits", source=_PENALTIES
    )
    presence_penalty: Finite = option(
        0.0, "Subtracted from a token's logit once if it was seen.", unit="logits", source=_PENALTIES
    )
    dry_multiplier: NonNegative = option(
        0.0, "Strength of the DRY penalty for repeated sequences of tokens; 0 turns it off.", unit="logits", source=_DRY
    )
    dry_base: NonNegative = option(
        1.75, "Factor by which the DRY penalty grows with every further token that is repeated.", source=_DRY
    )
    dry_allowed_length: Annotated[int, Field(ge=0, le=MAX_HISTORY)] = option(
        2, "Length of a repetition that DRY does not penalize.", unit="tokens", source=_DRY
    )
    dry_penalty_last_n: LookBack = option(
        64, "How many of the last tokens DRY looks at; -1 for the whole context.", unit="tokens", source=_DRY
    )
    dry_sequence_breakers: Sequence[Text] = option(
        ("\n", ":", '"', "*"), "Strings that end a repetition for DRY.", source=_DRY
    )
    xtc_probability: Probability = option(
        0.0, "Chance that the top choices are excluded (XTC); 0 turns it off.", unit="probability", source=_XTC
    )
    xtc_threshold: Probability = option(
        0.1,
        "Probability from which on a token is a top choice for XTC, which keeps the least likely of them.",
        unit="probability",
        source=_XTC,
    )
    top_n_sigma: Finite = option(
        -1.0,
        "Keep the tokens within this many standard deviations of the largest logit; 0 or less turns it off.",
        unit="standard deviations",
        source="llama_sampler_init_top_n_sigma; Tang et al. 2024, arXiv:2411.07641",
    )
    samplers: Sequence[Sampler] = option(
        SAMPLERS,
        "Which of the sampling methods are applied, and in which order, by llama.cpp's names; the others are off.",
        source="common_sampler_init",
    )
    mirostat: Literal[0, 1, 2] = option(
        0,
        "1 or 2: Mirostat of this version, which aims at a target surprise, samples in place of all methods but the "
        "temperature; 0 turns it off.",
        source=_MIROSTAT,
    )
    mirostat_tau: NonNegative = option(5.0, "The target surprise of Mirostat, in bits.", unit="bits", source=_MIROSTAT)
    mirostat_eta: NonNegative = option(0.1, "Learning rate of Mirostat.", source=_MIROSTAT)
    seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] | None = option(
        None,
        "Seed of the random numbers, which makes a generation reproducible.",
        none="a new seed for every generation",
        none_values=(-1,),
        source="llama_sampler_init_dist",
    )
    stop_sequences: Sequence[Text] = option((), "Generation ends before the first of these.", other_name="stop")
    logit_bias: dict[Annotated[int, Field(ge=0, strict=False)], float] = option(
        {},
        "Added to the logits of tokens, by token id; `-inf` forbids a token.",
        unit="logits",
        source="llama_sampler_init_logit_bias",
    )
    ignore_eos: bool = option(False, "Never end by an end-of-generation token, except where a grammar can only end.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = option(
        None,
        "Report the log probability of every token, and those of this many of the most likely ones in its place.",
        none="nothing is reported",
        unit="tokens",
    )
    speculation: Literal["off", "lookup", "draft"] = option(
        "off",
        'How tokens are drafted, of which a step then evaluates several; "lookup": by what followed where the latest '
        'tokens occurred before, in the prompt or the answer; "draft": by the `draft_model`, the default of an `LLM` '
        "that has one. Texts are those of plain sampling, and come faster where drafts are right.",
        source="common_ngram_simple_draft; Leviathan et al. 2022, arXiv:2211.17192; ggml-org/llama.cpp#4484",
    )
    n_ctx: PositiveCount | None = option(
        None,
        "Size of the context in tokens, prompt and answer together.",
        none="as large as the generation needs, up to what the model was trained for",
        none_values=(0,),
        unit="tokens",
        source=_CONTEXT,
    )
    n_batch: PositiveCount = option(
        2048, "Most tokens of the prompt that are evaluated in one step.", unit="tokens", source=_CONTEXT
    )
    prefix_cache: bool | Text = option(
        False,
        "Keep the KV cache of this call, and let later calls begin with what they share of it. A text is a key: only "
        "calls of the same key share. A call with a session ignores it: sessions share among themselves.",
    )
    add_bos: bool | None = option(
        None,
        "Whether a prompt starts with the beginning-of-sequence token.",
        none=_AS_THE_MODEL,
        source="llama_tokenize",
    )
    parse_special: bool = option(
        True,
        "Whether the text of control tokens in a prompt, such as `</s>`, means the token.",
        source="llama_tokenize",
    )
    lora: dict[Text, Finite] = option(
        {},
        "Scales of LoRA adapters by the names that `LLM.load_lora` gave them; 0 leaves one out.",
        source="llama_set_adapters_lora; Hu et al. 2021, arXiv:2106.09685",
    )

    @field_validator("samplers", mode="before")
    @classmethod
    def _sampler_list_to_tuple(cls, value: Any) -> Any:
        return _to_tuple(value)

    @field_validator("stop_sequences", "dry_sequence_breakers", mode="before")
    @classmethod
    def _one_string_to_tuple(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else _to_tuple(value)

    @field_validator("logit_bias")
    @classmethod
    def _check_biases(cls, value: dict[int, float]) -> dict[int, float]:
        for token, bias in value.items():
            if bias != bias:
                raise ValueError(f"the bias of token {token} is not a number")
        return value


@documented
class ModelConfig(Config):
    """How a model is loaded and computed. The names are llama.cpp's, and so are the defaults.

    Every option can also be given to ``LLM(...)`` by its name.

    >>> ModelConfig(n_gpu_layers=0, n_threads=4, type_k="q8_0")
    ModelConfig(n_gpu_layers=0, n_threads=4, type_k='q8_0')
    >>> ModelConfig().n_parallel
    4
    """

    n_gpu_layers: Annotated[int, Field(ge=-1, lt=2**31)] | Literal["auto"] = option(
        "auto",
        'Layers to keep on GPUs; "auto" for as many as their free memory allows beside the context, -1 for all. '
        "Without a GPU it has no effect.",
        unit="layers",
        source="llama_model_params, common_fit_params",
    )
    main_gpu: Annotated[int, Field(ge=0, lt=2**31)] = option(
        0, 'Index of the GPU to use when `split_mode` is "none".', source=_MODEL
    )
    split_mode: Literal["none", "layer", "row", "tensor"] = option(
        "layer", "How several GPUs share the model.", source=_MODEL
    )
    tensor_split: Sequence[NonNegative] = option(
        (),
        "Share of the model for each GPU, relative to the sum of all; empty to decide by free memory.",
        source=_MODEL,
    )
    devices: Sequence[Text] = option(
        (), "Names of the devices to use, as `cyllama info` shows them; empty for all.", source=_MODEL
    )
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap_mlock", "direct_io"] = option(
        "auto",
        'How the file is read; "auto" maps it into memory if possible, and copies it to large pages if there is room.',
        source=_MODEL,
    )
    check_tensors: bool = option(False, "Validate the weights while the model is loaded.", source=_MODEL)
    kv_overrides: dict[MetadataText, bool | int | float | MetadataText] = option(
        {}, "Metadata values to use instead of the file's, by key.", source=_MODEL
    )
    draft_model: Text | None = option(
        None,
        "A smaller model of the same vocabulary that drafts tokens: a GGUF file or a name on the hub, as for the model "
        'itself, or to `LLM(...)` a loaded `LLM`. It is used where `speculation` is "draft".',
        none="tokens are drafted by no model",
        source="common_speculative_init; Leviathan et al. 2022, arXiv:2211.17192",
    )
    n_threads: Threads | None = option(
        None,
        "Threads that evaluate single tokens.",
        none="the physical cores that the process may use",
        none_values=(-1, 0),
        unit="threads",
        source=_CONTEXT,
    )
    n_threads_batch: Threads | None = option(
        None,
        "Threads that evaluate prompts.",
        none="the same number as `n_threads`",
        none_values=(-1, 0),
        unit="threads",
        source=_CONTEXT,
    )
    threadpool_poll: Annotated[int, Field(ge=0, le=100)] = option(
        50,
        "How eagerly idle threads wait for work, from 0 (they sleep) to 100 (they spin).",
        source="ggml_threadpool_params.poll",
    )
    n_ubatch: PositiveCount = option(512, "Most tokens that are computed at once.", unit="tokens", source=_CONTEXT)
    n_parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = option(
        4, "Most generations that take part in a step; others wait in line.", unit="generations"
    )
    max_waiting: Count | None = option(
        None,
        "Most generations that wait in line besides `n_parallel` others; one more is refused with a `BusyError`. "
        "Embeddings and rankings are not counted: each pass takes texts of all calls.",
        none="any number",
        unit="generations",
    )
    max_sessions: PositiveCount = option(
        256,
        "Most conversations that are remembered; the one unused for the longest is forgotten.",
        unit="conversations",
    )
    kv_cells: PositiveCount | None = option(
        None,
        "Tokens that the KV caches of all conversations in the context have room for, rounded up to 256.",
        none="what the running generations need, growing, and some for conversations that alternate",
        unit="tokens",
    )
    host_cache_mb: Annotated[int, Field(ge=0, le=2**40)] = option(
        1024,
        "Most host memory, in MiB, for the KV caches of conversations that left the context; 0 keeps none.",
        unit="MiB",
        source="llama_state_seq_get_data",
    )
    projector: Text | None = option(None, 'Projector of images: a file, a hub name, or "auto".', none="no images")
    image_cache_mb: Count = option(256, "Most memory, in MiB, for embeddings of images; 0 keeps none.", unit="MiB")
    session_images_mb: Count = option(1024, "Most memory, in MiB, for pixels of images in conversations.", unit="MiB")
    flash_attn: Literal["auto", "disabled", "enabled"] = option(
        "auto",
        "When to use flash attention.",
        source="llama_context_params.flash_attn_type; Dao et al. 2022, arXiv:2205.14135",
    )
    type_k: CacheType = option("f16", "Data type of the K cache.", source=_CONTEXT)
    type_v: CacheType = option(
        "f16", "Data type of the V cache; a quantized one needs flash attention.", source=_CONTEXT
    )
    offload_kqv: bool = option(True, "Keep the KV cache on the GPU.", source=_CONTEXT)
    op_offload: bool = option(True, "Compute large operations of layers in host memory on the GPU.", source=_CONTEXT)
    swa_full: bool = option(False, "Keep all tokens of sliding-window layers, not only the window.", source=_CONTEXT)
    rope_scaling_type: Literal["none", "linear", "yarn", "longrope"] | None = option(
        None, "How RoPE is scaled beyond the training length.", none=_AS_THE_MODEL, source=_CONTEXT
    )
    rope_freq_base: NonNegative = option(
        0.0,
        "RoPE base frequency; 0 as the model says.",
        source="llama_context_params; Su et al. 2021, arXiv:2104.09864",
    )
    rope_freq_scale: NonNegative = option(0.0, "RoPE frequency scale; 0 as the model says.", source=_CONTEXT)
    yarn_ext_factor: Finite = option(-1.0, "YaRN extrapolation mix; negative as the model says.", source=_YARN)
    yarn_attn_factor: Finite = option(-1.0, "YaRN magnitude scale; negative as the model says.", source=_YARN)
    yarn_beta_fast: Finite = option(-1.0, "YaRN low correction dimension; negative as the model says.", source=_YARN)
    yarn_beta_slow: Finite = option(-1.0, "YaRN high correction dimension; negative as the model says.", source=_YARN)
    yarn_orig_ctx: Count = option(
        0, "Context size that the model was trained with before YaRN; 0 as the model says.", unit="tokens", source=_YARN
    )

    _draft_to_text = field_validator("draft_model", mode="before")(as_draft_name)
    _path_to_text = field_validator("projector", mode="before")(as_path_text)

    @field_validator("tensor_split", "devices", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        return _to_tuple(value)


#: Options of a generation, as calls take them.
ConfigLike: TypeAlias = GenerationConfig | Mapping[str, Any] | None


def as_config(kind: type[ConfigT], value: Any) -> ConfigT:
    """Return ``value`` as a config: itself, one made from a mapping of options, or the defaults for ``None``.

    >>> as_config(GenerationConfig, {"top_k": 20})
    GenerationConfig(top_k=20)

    Raises:
        ConfigTypeError: It is something else, or there is no such option.
        ConfigError: A value is out of range.
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
    """Raise :class:`ConfigTypeError` for the first unknown name, suggesting the nearest known one.

    >>> check_option_names("LLM.chat", ["temprature"], ["temperature", "top_k"])
    Traceback (most recent call last):
    cyllama.errors.ConfigTypeError: LLM.chat has no option 'temprature': did you mean 'temperature'?
    """
    known = list(known)
    for name in names:
        if name not in known:
            of_model = name in ModelConfig.model_fields
            hint = "it belongs to ModelConfig, and to LLM(...)" if of_model else hint_for(name, known)
            raise ConfigTypeError(f"{owner} has no option {name!r}{f': {hint}' if hint else ''}")


def by_own_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the own name of each that has two.

    >>> by_own_names({"stop": ".", "top_k": 20})
    {'top_k': 20, 'stop_sequences': '.'}

    Raises:
        ConfigTypeError: An option is given by both of its names.
    """
    result = dict(options)
    for name, own in OTHER_NAMES.items():
        if name in result:
            if own in result:
                raise ConfigTypeError(f"{name} and {own} are the same option: pass one of them")
            result[own] = result.pop(name)
    return result


#: The own names of options that have another name as well.
OTHER_NAMES = other_names(GenerationConfig, ModelConfig)


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
