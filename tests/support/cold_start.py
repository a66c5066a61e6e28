"""Answers, compared with what a context says that has seen nothing else."""

from __future__ import annotations

from collections.abc import Sequence

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
"""Logits by which a greedy token may miss the best one of a cold start, if the model's weights are quantized."""
NEARLY_TIED_EXACTLY = 0.02
"""The same, if they are not."""

MOST_TOKENS = 256  # of an answer


class ColdStart:
    """A context of a model for one sequence, which is cleared before every use.

    Attributes:
        compared: How many tokens were compared.
    """

    def __init__(self, llm: LLM | LlamaModel, n_ctx: int = 2048, n_threads: int = 1) -> None:
        self._model = llm.model if isinstance(llm, LLM) else llm
        self._eog = list(self._model.vocab.eog_tokens())
        params = LlamaContextParams()
        params.n_ctx = params.n_batch = n_ctx
        params.n_outputs_max = MOST_TOKENS
        params.n_threads = params.n_threads_batch = n_threads
        params.kv_unified, params.swa_full, params.no_perf = True, False, True
        params.flash_attn_type = LlamaFlashAttnType.DISABLED
        params.type_k = params.type_v = GGMLType.F32
        self._context = LlamaContext(self._model, params)
        self.compared = 0

    def regret(self, prompt: Sequence[int], answer: Sequence[int], *, ignore_eos: bool = False) -> float:
        """Return by how many logits, at most, a token of a greedy answer missed the best one."""
        tokens, worst = [*prompt, *answer], 0.0
        assert len(answer) <= MOST_TOKENS
        if not answer:
            return worst
        batch = LlamaBatch(len(tokens))
        for i, token in enumerate(tokens[:-1]):
            batch.add(token, i, [0], i >= len(prompt) - 1)
        self._context.kv_cache_clear(clear_data=False)
        assert self._context.decode(batch) == 0
        for i in range(len(prompt) - 1, len(tokens) - 1):
            logits = np.array(self._context.get_logits_ith(i))
            chosen = logits[tokens[i + 1]]
            if ignore_eos:
                logits[self._eog] = -np.inf
            worst = max(worst, float(logits.max() - chosen))
        self.compared += len(answer)
        return worst

    def check(self, request: Request, nearly_tied: float) -> None:
        """Raise ``AssertionError`` where a request that has ended, or was cancelled, was answered otherwise."""
        regret = self.regret(request.prompt, request.tokens, ignore_eos=request.config.ignore_eos)
        assert regret < nearly_tied, (
            f"after {len(request.prompt)} tokens, of which {request.n_reused} were known, an answer of "
            f"{len(request.tokens)} tokens has one that is {regret:.3f} logits below the best"
        )

    def close(self) -> None:
        """Free the context."""
        self._context.close()
