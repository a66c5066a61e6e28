"""The arguments that LangChain's classes take by cyllama's own names.

`None` leaves an option as cyllama has it: see the defaults.

Generated from cyllama/config.py and cyllama/options.py by `make options`; do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class LoadingFields(BaseModel):
    """How a model is loaded and computed: the options of `cyllama.ModelConfig`."""

    model_config = ConfigDict(protected_namespaces=())

    n_gpu_layers: int | str | None = None
    """Layers to keep on GPUs; "auto" for as many as their free memory allows beside the context, -1 for all. Without a
    GPU it has no effect. (Default: `"auto"`)"""

    main_gpu: int | None = None
    """Index of the GPU to use when `split_mode` is "none". (Default: `0`)"""

    split_mode: str | int | None = None
    """How several GPUs share the model. llama.cpp's number of it is valid too. (Default: `"layer"`)"""

    tensor_split: Sequence[float] | None = None
    """Share of the model for each GPU, relative to the sum of all; empty to decide by free memory. (Default: `()`)"""

    devices: Sequence[str] | None = None
    """Names of the devices to use, as `cyllama info` shows them; empty for all. (Default: `()`)"""

    load_mode: str | None = None
    """How the file is read; "auto" maps it into memory if possible, and copies it to large pages if there is room.
    (Default: `"auto"`)"""

    check_tensors: bool | None = None
    """Validate the weights while the model is loaded. (Default: `False`)"""

    kv_overrides: dict[str, bool | int | float | str] | None = None
    """Metadata values to use instead of the file's, by key. (Default: `{}`)"""

    draft_model: str | None = None
    """A smaller model of the same vocabulary that drafts tokens: a GGUF file or a name on the hub, as for the model
    itself, or to `LLM(...)` a loaded `LLM`. It is used where `speculation` is "draft". `None`: tokens are drafted by no
    model."""

    n_threads: int | None = None
    """Threads that evaluate single tokens. 0 or less, or `None`: the physical cores that the process may use."""

    n_threads_batch: int | None = None
    """Threads that evaluate prompts. 0 or less, or `None`: the same number as `n_threads`."""

    threadpool_poll: int | None = None
    """How eagerly idle threads wait for work, from 0 (they sleep) to 100 (they spin). (Default: `50`)"""

    n_ubatch: int | None = None
    """Most tokens that are computed at once. (Default: `512`)"""

    n_parallel: int | None = None
    """Most generations that take part in a step; others wait in line. (Default: `16`)"""

    max_waiting: int | None = None
    """Most generations that wait in line besides `n_parallel` others; one more is refused with a `BusyError`.
    Embeddings and rankings are not counted: each pass takes texts of all calls. `None`: any number."""

    max_sessions: int | None = None
    """Most conversations that are remembered; the one unused for the longest is forgotten. (Default: `256`)"""

    kv_cells: int | None = None
    """Tokens that the KV caches of all conversations in the context have room for, rounded up to 256. `None`: what the
    running generations need, growing, and some for conversations that alternate."""

    host_cache_mb: int | None = None
    """Most host memory, in MiB, for the KV caches of conversations that left the context; 0 keeps none. (Default:
    `1024`)"""

    projector: str | None = None
    """Projector of images: a file, a hub name, or "auto". `None`: no images."""

    image_cache_mb: int | None = None
    """Most memory, in MiB, for embeddings of images; 0 keeps none. (Default: `256`)"""

    session_images_mb: int | None = None
    """Most memory, in MiB, for pixels of images in conversations. (Default: `1024`)"""

    flash_attn: str | bool | None = None
    """When to use flash attention. A `bool` stands for the last two. (Default: `"auto"`)"""

    type_k: str | int | None = None
    """Data type of the K cache. llama.cpp's number of it is valid too. (Default: `"f16"`)"""

    type_v: str | int | None = None
    """Data type of the V cache; a quantized one needs flash attention. llama.cpp's number of it is valid too. (Default:
    `"f16"`)"""

    offload_kqv: bool | None = None
    """Keep the KV cache on the GPU. (Default: `True`)"""

    op_offload: bool | None = None
    """Compute large operations of layers in host memory on the GPU. (Default: `True`)"""

    swa_full: bool | None = None
    """Keep all tokens of sliding-window layers, not only the window. (Default: `False`)"""

    rope_scaling_type: str | int | None = None
    """How RoPE is scaled beyond the training length. `None`: as the model says. llama.cpp's number of it is valid
    too."""

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
    """Context size that the model was trained with before YaRN; 0 as the model says. (Default: `0`)"""


class GenerationFields(BaseModel):
    """How text is generated: the options of `cyllama.GenerationConfig`."""

    max_tokens: int | None = None
    """Most tokens to generate. 0 or less: generation goes on to the end of the context. (Default: `512`)"""

    temperature: float | None = None
    """Divides the logits before a token is sampled; 0 always takes the most likely token. (Default: `0.8`)"""

    top_k: int | None = None
    """Keep the k most likely tokens; 0 keeps all. (Default: `40`)"""

    top_p: float | None = None
    """Keep the most likely tokens whose probabilities add up to this (nucleus sampling); 1 keeps all. (Default:
    `0.95`)"""

    min_p: float | None = None
    """Keep the tokens that are at least this times as likely as the most likely one; 0 keeps all. (Default: `0.05`)"""

    typical_p: float | None = None
    """Keep the most typical tokens whose probabilities add up to this (locally typical sampling); 1 keeps all.
    (Default: `1.0`)"""

    repeat_penalty: float | None = None
    """Divides a positive logit of a token seen in the last `penalty_last_n`, and multiplies a negative one; 1 turns it
    off. (Default: `1.0`)"""

    penalty_last_n: int | None = None
    """How many of the last tokens, prompt included, the three penalties look at; -1 for the whole context. (Default:
    `64`)"""

    frequency_penalty: float | None = None
    """Subtracted from a token's logit for every time that it was seen. (Default: `0.0`)"""

    presence_penalty: float | None = None
    """Subtracted from a token's logit once if it was seen. (Default: `0.0`)"""

    dry_multiplier: float | None = None
    """Strength of the DRY penalty for repeated sequences of tokens; 0 turns it off. (Default: `0.0`)"""

    dry_base: float | None = None
    """Factor by which the DRY penalty grows with every further token that is repeated. (Default: `1.75`)"""

    dry_allowed_length: int | None = None
    """Length of a repetition that DRY does not penalize. (Default: `2`)"""

    dry_penalty_last_n: int | None = None
    """How many of the last tokens DRY looks at; -1 for the whole context. (Default: `64`)"""

    dry_sequence_breakers: Sequence[str] | None = None
    r"""Strings that end a repetition for DRY. (Default: `("\n", ":", "\"", "*")`)"""

    xtc_probability: float | None = None
    """Chance that the top choices are excluded (XTC); 0 turns it off. (Default: `0.0`)"""

    xtc_threshold: float | None = None
    """Probability from which on a token is a top choice for XTC, which keeps the least likely of them. (Default:
    `0.1`)"""

    top_n_sigma: float | None = None
    """Keep the tokens within this many standard deviations of the largest logit; 0 or less turns it off. (Default:
    `-1.0`)"""

    samplers: Sequence[str] | None = None
    """Which of the sampling methods are applied, and in which order, by llama.cpp's names; the others are off.
    (Default: `("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")`)"""

    mirostat: int | None = None
    """1 or 2: Mirostat of this version, which aims at a target surprise, samples in place of all methods but the
    temperature; 0 turns it off. (Default: `0`)"""

    mirostat_tau: float | None = None
    """The target surprise of Mirostat, in bits. (Default: `5.0`)"""

    mirostat_eta: float | None = None
    """Learning rate of Mirostat. (Default: `0.1`)"""

    seed: int | None = None
    """Seed of the random numbers, which makes a generation reproducible. A negative number, or `None`: a new seed for
    every generation."""

    stop_sequences: Sequence[str] | str | None = None
    """Generation ends before the first of these. (Default: `()`)"""

    logit_bias: dict[int, float] | None = None
    """Added to the logits of tokens, by token id; `-inf` forbids a token. (Default: `{}`)"""

    ignore_eos: bool | None = None
    """Never end by an end-of-generation token, except where a grammar can only end. (Default: `False`)"""

    logprobs: int | bool | None = None
    """Report the log probability of every token, and those of this many of the most likely ones in its place. `None`:
    nothing is reported. `True` reports `top_logprobs` of them."""

    speculation: str | None = None
    """How tokens are drafted, of which a step then evaluates several; "lookup": by what followed where the latest
    tokens occurred before, in the prompt or the answer; "draft": by the `draft_model`, the default of an `LLM` that has
    one. Texts are those of plain sampling, and come faster where drafts are right. (Default: `"off"`)"""

    n_ctx: int | None = None
    """Size of the context in tokens, prompt and answer together. 0 or less, or `None`: as large as the generation
    needs, up to what the model was trained for."""

    n_batch: int | None = None
    """Most tokens of the prompt that are evaluated in one step. (Default: `2048`)"""

    prefix_cache: bool | str | None = None
    """Keep the KV cache of this call, and let later calls begin with what they share of it. A text is a key: only calls
    of the same key share. A call with a session ignores it: sessions share among themselves. (Default: `False`)"""

    add_bos: bool | None = None
    """Whether a prompt starts with the beginning-of-sequence token. `None`: as the model says."""

    parse_special: bool | None = None
    """Whether the text of control tokens in a prompt, such as `</s>`, means the token. (Default: `True`)"""

    lora: dict[str, float] | None = None
    """LoRA adapters to compute with, and their scales: by the paths of their files, or by the names that
    `client.load_lora` gave them. (Default: `{}`)"""


class ChatFields(BaseModel):
    """How a chat is rendered and answered: options of `cyllama.LLM.chat`."""

    chat_template: str | None = None
    """Jinja source of a template to use instead of the model's own, the name of a template that llama.cpp knows, such
    as "llama3", or the path of a file. `None`: the model's own template."""

    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template by name; the values are JSON."""

    enable_thinking: bool | None = None
    """Whether the model reasons before it answers, where its template has a switch for it. `None`: as
    `chat_template_kwargs` says, else it reasons. Its reasoning is in `additional_kwargs["reasoning_content"]` of the
    message, and among its `content_blocks`."""

    reasoning_effort: str | None = None
    """How hard the model reasons, where its template has a variable for it: "minimal", "low", "medium", "high" or
    "xhigh"; "none" turns reasoning off. `None`: as the template says."""

    continue_final_message: bool | None = None
    """Whether the answer continues the last message if that is an `AIMessage`. It is then only the text that follows.
    (Default: `True`, but `False` with `response_format` and `with_structured_output`.)"""

    parallel_tool_calls: bool | None = None
    """Whether one answer may call several tools. (Default: `False`)"""

    reasoning_budget: int | None = None
    """Most tokens that the model may reason with; then the end of its reasoning is forced, and it answers. -1 for any
    number; 0 turns reasoning off. `None`: any number."""
