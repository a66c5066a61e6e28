"""What files say about models, by overrides and by damage."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import gguf

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, LlamaModelParams

from ..registry import Case
from ._models import MODELS, model_path
from .contexts import make_params

MORE_KEYS = (
    "{arch}.rope.scaling.type",
    "{arch}.rope.scaling.factor",
    "{arch}.rope.dimension_count",
    "{arch}.attention.causal",
    "{arch}.attention.sliding_window",
    "{arch}.attention.key_length",
    "{arch}.attention.value_length",
    "{arch}.attention.head_count_kv",
    "{arch}.expert_count",
    "{arch}.expert_used_count",
    "{arch}.expert_group_count",
    "{arch}.expert_group_used_count",
    "{arch}.pooling_type",
    "{arch}.vocab_size",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_space_prefix",
)
INTEGERS = (0, 1, 2, 3, 5, 7, 64, -1, 255, 2**31, 2**32 - 1, 2**40)
TEXTS = ("", "x", "linear", "dynamic", "yarn", "bert", "llama", "gpt2", "t5", "rwkv", "none", "gpt-2", "default")

SEEDS: list[Case] = [
    *({"model": "tiny-chat", "overrides": {"llama.rope.scaling.type": text}} for text in ("dynamic", "x", "linear")),
    *(
        {"model": model, "overrides": {"tokenizer.ggml.model": text}}
        for model in ("tiny-chat", "sentencepiece", "bert")
        for text in ("bert", "llama", "t5", "rwkv", "plamo2", "gpt2", "whitespace", "hybriddna", "none")
    ),
    {"model": "lfm2", "overrides": {"lfm2.rope.dimension_count": 1}},
    {"model": "bert", "overrides": {"tokenizer.ggml.seperator_token_id": 2**31}},
    {"model": "bert", "overrides": {"tokenizer.ggml.bos_token_id": 2**31}},
    {
        "model": "tiny-chat",
        "overrides": {"llama.expert_count": 3, "llama.expert_used_count": 1, "llama.expert_group_count": 2},
    },
]


def generate(rng: random.Random) -> Case:
    """Draw a model, and overrides of what it says, or bytes of its header to change."""
    name = rng.choice(MODELS)
    if rng.random() < 0.4:
        size = min(model_path(name).stat().st_size, 60_000)
        return {"model": name, "bytes": [[rng.randrange(size), rng.randrange(256)] for _ in range(rng.randint(1, 4))]}
    fields = gguf.GGUFReader(model_path(name)).fields
    arch = fields["general.architecture"].contents()
    keys = [key for key in fields if not key.startswith("GGUF.") and key != "general.architecture"]
    keys += [key.format(arch=arch) for key in MORE_KEYS]
    values: list[Any] = [*INTEGERS, *TEXTS, True, False, 0.0, -1.0, 1e-6, 1e30, float("nan")]
    return {"model": name, "overrides": {rng.choice(keys): rng.choice(values) for _ in range(rng.randint(1, 3))}}


def run(case: Case) -> None:
    """Load the model and compute a little."""
    params = LlamaModelParams()
    params.kv_overrides = case.get("overrides", {})
    with tempfile.TemporaryDirectory() as folder:
        path = model_path(case["model"])
        if "bytes" in case:
            data = bytearray(path.read_bytes())
            for at, byte in case["bytes"]:
                data[at] = byte
            path = Path(folder) / "damaged.gguf"
            path.write_bytes(data)
        try:
            with LlamaModel(path, params) as model:
                model.vocab.tokenize("Hello, world! é", parse_special=True)
                batch = LlamaBatch(8)
                batch.add_sequence([1, 2, 3])
                with LlamaContext(model, make_params({})) as context:
                    (context.encode if model.has_encoder else context.decode)(batch)
        except (ValueError, RuntimeError, MemoryError, IndexError):
            pass
