"""Answers, compared with what a context says that has seen nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np

from cyllama import LLM
from cyllama.engine import Request
from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
)

#: Options with which rounding depends on little but the sizes of batches.
EXACT = {"flash_attn": "disabled", "type_k": "f32", "type_v": "f32", "n_threads": 1, "temperature": 0}
NEARLY_TIED = 0.3
"""Logits by which a greedy token may miss the best one of a cold start, if the model's weights are quantized.

Rounding can move two tokens by more. With Gemma 3 270M and batches of random sizes, the differences between the ten
best tokens moved by 0.26 logits in the median of 500 positions, and by 0.9 at most. So a token that misses the best one
by more is compared with what rounding does to it in particular: see :meth:`ColdStart.check`.
"""
NEARLY_TIED_EXACTLY = 0.02
"""The same, if they are not."""

MOST_TOKENS = 256  # of an answer
N_RANDOM = 8  # evaluations in batches of random sizes, which show how far rounding moves a gap


def batchings() -> Iterator[Iterator[int]]:
    """Yield sizes of batches: of a caller alone and of a few, for which there are kernels of their own, and others."""
    yield from map(repeat, (1, 2, 3))
    yield from map(random_sizes, range(N_RANDOM))


def random_sizes(seed: int) -> Iterator[int]:
    """Yield the numbers of tokens of batches, with few of them and with as many as beside a prompt."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((1, rng.randint(2, 14), rng.randint(16, 200)))


class ColdStart:
    """A context of a model for one sequence, which is cleared before every use.

    Attributes:
        compared: How many tokens were compared.
    """

    def __init__(self, llm: LLM | LlamaModel, n_ctx: int = 2048) -> None:
        self._model = llm.model if isinstance(llm, LLM) else llm
        self._eog = list(self._model.vocab.eog_tokens())
        params = LlamaContextParams()
        params.n_ctx = params.n_batch = n_ctx
        params.n_outputs_max = MOST_TOKENS
        params.n_threads = params.n_threads_batch = 1
        params.kv_unified, params.swa_full, params.no_perf = True, False, True
        params.flash_attn_type = LlamaFlashAttnType.DISABLED
        params.type_k = params.type_v = GGMLType.F32
        self._context = LlamaContext(self._model, params)
        self.compared = 0

    def regret(self, prompt: Sequence[int], answer: Sequence[int], *, ignore_eos: bool = False) -> float:
        """Return by how many logits, at most, a token of a greedy answer missed the best one."""
        return float(self._gaps(prompt, answer, ignore_eos).max(initial=0.0))

    def check(self, request: Request, nearly_tied: float) -> None:
        """Raise ``AssertionError`` where a request that has ended, or was cancelled, was answered otherwise.

        Where a token is more than ``nearly_tied`` logits below the best one, the same tokens are evaluated in other
        batches, as an engine might. Rounding may have decided where the gap is less than four standard deviations, or
        less than ``nearly_tied`` in any of them.
        """
        prompt, answer, ignore_eos = request.prompt, request.tokens, request.config.ignore_eos
        gaps = self._gaps(prompt, answer, ignore_eos)
        if gaps.max(initial=0.0) < nearly_tied:
            return
        others = np.array([self._gaps(prompt, answer, ignore_eos, sizes) for sizes in batchings()])
        excess = np.minimum(others.min(axis=0) - nearly_tied, others.mean(axis=0) - 4 * others.std(axis=0, ddof=1))
        worst = int(excess.argmax())
        assert excess[worst] < 0, (
            f"after {len(prompt)} tokens, of which {request.n_reused} were known, token {worst} of an answer of "
            f"{len(answer)} is {gaps[worst]:.3f} logits below the best; in other batches, it is "
            f"{others[:, worst].round(3).tolist()}"
        )

    def _gaps(
        self, prompt: Sequence[int], answer: Sequence[int], ignore_eos: bool, sizes: Iterator[int] | None = None
    ) -> np.ndarray:
        """Return for each token of an answer how many logits it is below the best one.

        Args:
            prompt: What it answers.
            answer: Its tokens.
            ignore_eos: Whether tokens that end an answer do not count.
            sizes: How many tokens the batches have. Without it, they are as large as possible.
        """
        assert len(answer) <= MOST_TOKENS
        tokens, first, gaps, start = [*prompt, *answer][:-1], len(prompt) - 1, list[float](), 0
        self._context.kv_cache_clear(clear_data=False)
        # A batch of several passes would lose parts of sliding windows before it computes them.
        batch = LlamaBatch(self._context.n_ubatch)
        while answer and start < len(tokens):
            size = batch.capacity if sizes is None else min(batch.capacity, next(sizes))
            part = range(start, min(start + size, len(tokens)))
            batch.clear()
            for i in part:
                batch.add(tokens[i], i, [0], i >= first)
            assert self._context.decode(batch) == 0
            for i in part[max(0, first - start) :]:
                logits = np.array(self._context.get_logits_ith(i - start))
                chosen = logits[answer[i - first]]
                if ignore_eos:
                    logits[self._eog] = -np.inf
                gaps.append(float(logits.max() - chosen))
            start = part.stop
        self.compared += len(gaps)
        return np.array(gaps)

    def close(self) -> None:
        """Free the context."""
        self._context.close()
