"""Conversations: their texts, what they hold, and how right their answers are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from cyllama import LLM
from cyllama.llama.llama_cpp import GGMLType, LlamaBatch, LlamaContext, LlamaContextParams, LlamaFlashAttnType
from cyllama.session import Session

from .harness import engine_of

END = "<|im_end|>\n"


def user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


SYSTEM = "<|im_start|>system\n" + "You are a helpful assistant. Always answer in one short sentence. " * 12 + END
CAPITAL, STORY = user("What is the capital of France?"), user("Tell me a story about a fox.")
IDS = np.random.default_rng(3).integers(10, 1270, 3000).tolist()


@contextmanager
def counting(llm: LLM) -> Iterator[SimpleNamespace]:
    """Count what is done inside the block, and check afterwards what is recorded."""
    counts, before = SimpleNamespace(), llm.stats
    yield counts
    after = llm.stats
    counts.evaluated = after.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    counts.reused = after.prompt_tokens_reused - before.prompt_tokens_reused
    counts.contexts = after.contexts_created - before.contexts_created
    check_integrity(llm)


def check_integrity(llm: LLM) -> None:
    if llm._runtime.engine is not None:
        llm._runtime.engine.check_integrity()


def tokens_of(session: Session) -> list[int]:
    conversation = session.llm._runtime.conversations.find(session.name)
    return [] if conversation is None else list(conversation.tokens)


def swap_out(llm: LLM) -> None:
    """Let every session leave the context for which there is host memory, as where others need its cells."""
    engine = engine_of(llm)

    with engine.paused():
        while engine._kv_cache.move_away():
            pass


def regret(llm: LLM, tokens: list[int], n_prompt: int) -> float:
    """By how much, at most, a greedy answer missed the best logit of a context that knows nothing else."""
    params = LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_outputs_max = len(tokens)
    params.n_threads = params.n_threads_batch = 1
    params.kv_unified = True
    params.flash_attn_type = LlamaFlashAttnType.DISABLED
    params.type_k = params.type_v = GGMLType.F32
    batch, worst = LlamaBatch(len(tokens)), 0.0
    for i, token in enumerate(tokens[:-1]):
        batch.add(token, i, [0], i >= n_prompt - 1)
    with LlamaContext(llm.model, params) as context:
        assert context.decode(batch) == 0
        for i in range(n_prompt - 1, len(tokens) - 1):
            logits = np.array(context.get_logits_ith(i))
            logits[[token for token in llm.model.vocab.eog_tokens() if token != tokens[i + 1]]] = -np.inf  # ignore_eos
            worst = max(worst, float(logits.max() - logits[tokens[i + 1]]))
    return worst


NEARLY_TIED = 0.3  # the rounding of other batches, with weights of 8 bits
EXACT = {"flash_attn": "disabled", "type_k": "f32", "type_v": "f32", "n_threads": 1, "temperature": 0}


def common_length(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
