"""The arguments that all classes take, by cyllama's own names. What they mean is said by cyllama's configs.

`None` leaves an option as cyllama has it: see the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class LoadingFields(BaseModel):
    """How a model is loaded and computed: the options of `cyllama.ModelConfig`."""

    model_config = ConfigDict(protected_namespaces=())

    n_gpu_layers: int | None = None
    """Layers to keep on the GPU; -1 for all. Without a GPU in the build it has no effect. (Default: `-1`)"""

    main_gpu: int | None = None
    """The GPU to use when `split_mode` is "none". (Default: `0`)"""

    split_mode: str | int | None = None
    """How several GPUs share the model. (Default: `"layer"`)"""

    tensor_split: Sequence[float] | None = None
    """Share of the model for each GPU; empty to decide by free memory."""

    devices: Sequence[str] | None = None
    """Names of the devices to use, as `cyllama info` shows them; empty for all."""

    load_mode: str | None = None
    """How the file is read; "auto" maps it into memory where that is possible. (Default: `"auto"`)"""

    check_tensors: bool | None = None
    """Validate the weights while loading. (Default: `False`)"""

    kv_overrides: dict[str, bool | int | float | str] | None = None
    """Metadata values to use instead of the file's."""

    n_threads: int | None = None
    """Threads for single tokens; 0 or less for the physical cores that the process may use, as `None`."""

    n_threads_batch: int | None = None
    """Threads for prompts; 0 or less for as many as `n_threads`, as `None`."""

    threadpool_poll: int | None = None
    """How eagerly idle threads wait for work, from 0 (sleep) to 100 (spin). (Default: `50`)"""

    n_ubatch: int | None = None
    """Most tokens that are computed at once. (Default: `512`)"""

    n_parallel: int | None = None
    """Most generations that take part in a step; others wait in line. (Default: `16`)"""

    max_sessions: int | None = None
    """Most conversations that are remembered; the one unused for the longest is forgotten. (Default: `256`)"""

    kv_cells: int | None = None
    """Tokens that the KV caches of all conversations in the context have room for together; `None` for as many as
    the running generations need, growing. llama.cpp rounds it up to 256."""

    host_cache_mb: int | None = None
    """Most host memory, in MiB, for the KV caches of conversations that left the context; 0 keeps none. (Default:
    `1024`)"""

    flash_attn: str | bool | None = None
    """When to use flash attention. (Default: `"auto"`)"""

    type_k: str | int | None = None
    """Data type of the K cache, by its name or llama.cpp's number. (Default: `"f16"`)"""

    type_v: str | int | None = None
    """Data type of the V cache; a quantized one needs flash attention. (Default: `"f16"`)"""

    offload_kqv: bool | None = None
    """Keep the KV cache on the GPU. (Default: `True`)"""

    op_offload: bool | None = None
    """Compute large operations of layers in host memory on the GPU. (Default: `True`)"""

    swa_full: bool | None = None
    """Keep all tokens of sliding-window layers, not only the window. (Default: `False`)"""

    rope_scaling_type: str | int | None = None
    """How RoPE is scaled; `None` as the model says."""

    rope_freq_base: float | None = None
    """RoPE base frequency; 0 as the model says. (Default: `0.0`)"""

    rope_freq_scale: float | None = None
    """RoPE frequency scale; 0 as the model says. (Default: `0.0`)"""

    yarn_ext_factor: float | None = None
    """YaRN extrapolation mix; negative as the model says. (Default: `-1.0`)"""

    yarn_attn_factor: float | None = None
    """YaRN magnitude scale; negative as the model says. (Default: `-1.0`)"""

    yarn_beta_fast: float | None = None
    """YaRN low correction dimension; negative as the model says. (Default: `-1.0`)"""

    yarn_beta_slow: float | None = None
    """YaRN high correction dimension; negative as the model says. (Default: `-1.0`)"""

    yarn_orig_ctx: int | None = None
    """YaRN original context size; 0 as the model says. (Default: `0`)"""


class GenerationFields(BaseModel):
    """How text is generated: the options of `cyllama.GenerationConfig`."""

    lora: dict[str, float] | None = None
    """LoRA adapters to compute with, and their scales: by the paths of their files, or by the names that
    `client.load_lora` gave them. (Default: `{}`)"""

    max_tokens: int | None = None
    """Most tokens to generate; 0 or less goes on to the end of the context. (Default: `512`)"""

    temperature: float | None = None
    """Divides the logits; 0 always takes the most likely token. (Default: `0.8`)"""

    top_k: int | None = None
    """Keep the k most likely tokens; 0 keeps all. (Default: `40`)"""

    top_p: float | None = None
    """Keep the most likely tokens whose probabilities add up to this; 1 keeps all. (Default: `0.95`)"""

    min_p: float | None = None
    """Keep tokens at least this times as likely as the most likely one; 0 keeps all. (Default: `0.05`)"""

    typical_p: float | None = None
    """Locally typical sampling; 1 turns it off. (Default: `1.0`)"""

    repeat_penalty: float | None = None
    """Divides the logits of tokens seen in the last `penalty_last_n`; 1 turns it off. (Default: `1.0`)"""

    penalty_last_n: int | None = None
    """Tokens, prompt included, that the three penalties look back at; -1 for the whole context. (Default: `64`)"""

    frequency_penalty: float | None = None
    """Subtracted from a token's logit for every time it was seen. (Default: `0.0`)"""

    presence_penalty: float | None = None
    """Subtracted from a token's logit once if it was seen. (Default: `0.0`)"""

    dry_multiplier: float | None = None
    """Strength of the DRY penalty for repeated sequences; 0 turns it off. (Default: `0.0`)"""

    dry_base: float | None = None
    """Its growth with the length of the repetition. (Default: `1.75`)"""

    dry_allowed_length: int | None = None
    """Length of repetition that is not penalised. (Default: `2`)"""

    dry_penalty_last_n: int | None = None
    """Tokens that it looks back at; -1 for the whole context. (Default: `64`)"""

    dry_sequence_breakers: Sequence[str] | None = None
    """Strings that end a repetition."""

    xtc_probability: float | None = None
    """Chance of excluding the top choices; 0 turns it off. (Default: `0.0`)"""

    xtc_threshold: float | None = None
    """Probability above which a token is a top choice. (Default: `0.1`)"""

    top_n_sigma: float | None = None
    """Keep tokens within this many standard deviations of the best logit; 0 or less turns it off. (Default:
    `-1.0`)"""

    samplers: Sequence[str] | None = None
    """Which of the methods above are applied, and in which order, by llama.cpp's names; the others are off."""

    mirostat: int | None = None
    """1 or 2 select with a target surprise instead of the methods above; 0 turns it off. (Default: `0`)"""

    mirostat_tau: float | None = None
    """The target surprise, in bits. (Default: `5.0`)"""

    mirostat_eta: float | None = None
    """How fast it is approached. (Default: `0.1`)"""

    seed: int | None = None
    """Makes a generation reproducible; a negative one draws a new seed every time, as `None` does."""

    stop_sequences: Sequence[str] | str | None = None
    """Generation ends before the first of these."""

    logit_bias: dict[int, float] | None = None
    """Added to the logits of these token ids; `-inf` forbids a token."""

    ignore_eos: bool | None = None
    """Never end by an end-of-generation token. (Default: `False`)"""

    logprobs: int | bool | None = None
    """Report the log probability of every token, and those of so many of the likeliest ones in its place; `True`
    reports `top_logprobs` of them."""

    n_ctx: int | None = None
    """Size of the context in tokens, prompt and answer together; 0 sizes it by need up to what the model was
    trained for, as `None` does."""

    n_batch: int | None = None
    """Most tokens of the prompt that are evaluated in one step. (Default: `2048`)"""

    add_bos: bool | None = None
    """Whether a prompt starts with the beginning-of-sequence token; `None` does as the model says."""

    parse_special: bool | None = None
    """Whether the text of control tokens in a prompt, such as `<|im_end|>`, means the token. (Default: `True`)"""
