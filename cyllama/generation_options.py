"""The options of :class:`GenerationConfig` by name, for type checkers and editors.

Generated from cyllama/config.py and cyllama/options.py by `make options`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from typing_extensions import TypedDict

from .config import Sampler


class GenerationOptions(TypedDict, total=False):
    """What every call takes: the options of :class:`GenerationConfig`, where they are described."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    penalty_last_n: int
    frequency_penalty: float
    presence_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    top_n_sigma: float
    samplers: Sequence[Sampler]
    mirostat: Literal[0, 1, 2]
    mirostat_tau: float
    mirostat_eta: float
    seed: int | None
    stop_sequences: str | Sequence[str]
    stop: str | Sequence[str]
    logit_bias: Mapping[int, float]
    ignore_eos: bool
    logprobs: int | None
    speculation: Literal["off", "lookup", "draft"]
    n_ctx: int | None
    n_batch: int
    prefix_cache: bool | str
    add_bos: bool | None
    parse_special: bool
    lora: Mapping[str, float]
