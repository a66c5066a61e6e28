"""Parameters of contexts, and what is done with such a context."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaAttentionType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaPoolingType,
    LlamaRopeScalingType,
    LlamaSampler,
)

from ..registry import Case
from ._models import MODELS, open_model

ENUMERATIONS: dict[str, Any] = {
    "pooling_type": LlamaPoolingType,
    "attention_type": LlamaAttentionType,
    "flash_attn_type": LlamaFlashAttnType,
    "rope_scaling_type": LlamaRopeScalingType,
    "type_k": GGMLType,
    "type_v": GGMLType,
}
NUMBERS: dict[str, list[int]] = {
    "n_ctx": [0, 1, 64, 255, 256, 300, 512, 1024],
    "n_batch": [1, 2, 7, 32, 64, 128, 512],
    "n_ubatch": [0, 1, 2, 3, 7, 16, 64, 128],
    "n_seq_max": [1, 2, 3, 4, 7, 16],
    "n_rs_seq": [0, 1, 2, 15, 16, 64, 2**32 - 1],
    "n_outputs_max": [0, 1, 2, 8, 128],
    "n_outputs_max_per_seq": [0, 1, 2, 8],
    "n_threads": [1, 2],
    "n_threads_batch": [1, 2],
    "yarn_orig_ctx": [0, 1, 100],
}
FLAGS = ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")
FLOATS = (
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
)


def _tokens(n: int, pos: int = 0, seq_id: int = 0, *, every: bool = False) -> list[Any]:
    return ["decode", [[n, pos, [seq_id], every]]]


SEEDS: list[Case] = [
    {"model": "gpt2", "params": {"n_ctx": 256, "n_batch": 128}, "operations": [_tokens(65)]},
    {"model": "bert", "params": {"n_ctx": 512, "n_batch": 256, "n_ubatch": 256}, "operations": [_tokens(129)]},
    *(
        {"model": model, "params": {"n_batch": 128, "n_seq_max": 3, "embeddings": True, "pooling_type": "MEAN"}}
        for model in ("tiny-chat", "bert", "mamba", "gemma3")
    ),
    *(
        {"model": "lfm2", "params": {"n_batch": 64, "n_ubatch": 16, "n_rs_seq": n}, "operations": [_tokens(40)]}
        for n in (14, 15, 16, 2**32 - 1)
    ),
    *(
        {
            "model": model,
            "params": {"n_seq_max": 2, "kv_unified": unified},
            "operations": [
                [what, [[3, 0, [0], True], [4, 0, [1], True]]] for what in ("encode", "decode", "encode", "decode")
            ],
        }
        for unified in (True, False)
        for model in ("t5", "t5encoder")
    ),
    *(
        {
            "model": model,
            "params": {"embeddings": True, "pooling_type": pooling, "n_seq_max": 2},
            "operations": [
                operation
                for flag in (False, True, False, False, True)
                for operation in (["set_embeddings", flag], ["clear"], _tokens(3, every=flag))
            ],
        }
        for model in ("tiny-chat", "bert", "rank")
        for pooling in ("CLS", "LAST", "RANK", "MEAN")
    ),
    {
        "model": "tiny-chat",
        "params": {"n_threads": 2, "n_threads_batch": 2},
        "operations": [
            step for i in range(20) for step in (_tokens(3, 3 * i), ["set_n_threads", 1 + i % 3, 1 + (i + 1) % 3])
        ],
    },
]


def generate(rng: random.Random) -> Case:
    """Draw a model, some parameters, and a few operations."""
    params: dict[str, Any] = {}
    for name, values in NUMBERS.items():
        if rng.random() < 0.4:
            params[name] = rng.choice(values)
    for name, enumeration in ENUMERATIONS.items():
        if rng.random() < 0.25:
            params[name] = rng.choice([member.name for member in enumeration])
    for name in FLAGS:
        if rng.random() < 0.3:
            params[name] = rng.random() < 0.5
    for name in FLOATS:
        if rng.random() < 0.05:
            params[name] = rng.choice([0.0, -1.0, 0.5, 1e-30, 1e30, 10000.0])
    n_seq = params.get("n_seq_max", 1)
    operations = [_operation(rng, n_seq) for _ in range(rng.randint(1, 10))]
    return {"model": rng.choice(MODELS), "params": params, "operations": operations}


def _operation(rng: random.Random, n_seq: int) -> list[Any]:
    def seq_id() -> int:
        return rng.randrange(n_seq) if rng.random() < 0.97 else rng.choice([-1, n_seq, 300])

    def pos() -> int:
        return rng.choice([-1, 0, 1, 2, 3, 8, 60])

    kind = rng.randrange(12)
    if kind < 5:
        parts = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            seq_ids = [seq_id() for _ in range(rng.choice([1, 1, 1, 2]))]
            # Mostly where the sequence goes on.
            start = None if rng.random() < 0.9 else pos()
            parts.append([rng.choice([1, 1, 2, 3, 17, 40, 70]), start, seq_ids, rng.random() < 0.3])
        return [rng.choice(["decode", "decode", "decode", "encode"]), parts]
    return rng.choice(
        [
            ["clear"],
            ["set_embeddings", rng.random() < 0.5],
            ["set_causal_attn", rng.random() < 0.5],
            ["set_n_threads", rng.randint(1, 3), rng.randint(1, 3)],
            ["seq_rm", seq_id(), pos(), pos()],
            ["seq_cp", seq_id(), seq_id(), pos(), pos()],
            ["seq_keep", seq_id()],
            ["seq_add", seq_id(), pos(), pos(), rng.choice([-60, -1, 1, 5, 2**30])],
            ["seq_div", seq_id(), pos(), pos(), rng.choice([0, 1, 2, 100])],
            ["sample"],
            ["state", seq_id(), seq_id(), rng.choice([0, 1])],
            ["whole_state"],
        ]
    )


def make_params(fields: dict[str, Any]) -> LlamaContextParams:
    """Return parameters of these values, enumerations by name."""
    params = LlamaContextParams()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1
    for name, value in fields.items():
        setattr(params, name, ENUMERATIONS[name][value] if name in ENUMERATIONS else value)
    return params


def run(case: Case) -> None:
    """Create the context and do the operations, whatever of them is refused."""
    try:
        context = LlamaContext(open_model(case["model"]), make_params(case["params"]))
    except (ValueError, RuntimeError, MemoryError):
        return
    with context:
        for operation in case.get("operations", [_tokens(3)]):
            with suppress(ValueError, RuntimeError, IndexError, MemoryError):
                _do(context, *operation)


def _do(context: LlamaContext, what: str, *args: Any) -> None:
    if what in ("decode", "encode"):
        batch = LlamaBatch(256, 4)
        for n, start, seq_ids, every in args[0]:
            first = start
            if first is None:
                first = max(context.seq_pos_max(seq_id) for seq_id in seq_ids) + 1
            for i in range(n):
                batch.add(3 + (7 * i + first) % 100, first + i, seq_ids, logits=every or i == n - 1)
        getattr(context, what)(batch)
        context.get_embeddings_seq(args[0][0][2][0])
    elif what == "clear":
        context.kv_cache_clear()
    elif what == "sample":
        LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.dist(1)]).sample(context)
    elif what == "state":
        source, target, flags = args
        state = context.state_seq_get_data(source, flags)
        context.state_seq_set_data(state, target, flags)
    elif what == "whole_state":
        context.state_set_data(context.state_get_data())
    else:
        getattr(context, what)(*args)
