"""One batch: what requests have evaluated in a step, and who samples from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from ..errors import DecodeError, GrammarError
from ..llama.llama_cpp import LlamaBatch, LlamaContext, LlamaSampler, LlamaVocab
from ..response import TokenLogprob
from .adapters import AdapterSet
from .logprobs import read_logprobs
from .request import Request
from .sequence import CachedSequence

DONE, NO_SPACE, ABORTED = 0, 1, 2  # what Batch.run returns, as LlamaContext.decode_and_sample does


class Row(NamedTuple):
    """What one request has evaluated.

    Attributes:
        request: The request.
        tokens: Its tokens in this batch.
        outputs: After which of these tokens the next one is sampled.
    """

    request: Request
    tokens: list[int]
    outputs: tuple[int, ...]


class Output(NamedTuple):
    """A token to be sampled.

    Attributes:
        position: After which token of the batch.
        sampler: What chooses it.
        request: Whose next token it is.
        is_probe: Whether it is sampled only to see whether the logits are finite.
    """

    position: int
    sampler: LlamaSampler
    request: Request
    is_probe: bool = False


class Sample(NamedTuple):
    """The next token of a request, or why sampling it failed."""

    request: Request
    token: int
    logprob: TokenLogprob | None = None
    failure: DecodeError | GrammarError | None = None


class Batch:
    """The rows of one step, all of them computed with the same adapters.

    Attributes:
        rows: What each request has evaluated.
        n_tokens: How many tokens all rows have.
        n_generating: How many requests have a token of their answer evaluated, and no prompt.
        samples: The tokens that were sampled by :meth:`run`.
        not_finite: Sequences after which the logits are not finite numbers.
        seconds: How long it took.
    """

    def __init__(self, space: LlamaBatch, probe: LlamaSampler) -> None:
        """Begin an empty batch in ``space``; ``probe`` is any sampler without a state."""
        space.clear()
        self.rows: list[Row] = []
        self.n_tokens = 0
        self.n_generating = 0
        self.samples: list[Sample] = []
        self.not_finite: list[CachedSequence] = []
        self.seconds = 0.0
        self._space = space
        self._probe = probe
        self._outputs: list[Output] = []

    @property
    def adapters(self) -> AdapterSet:
        """What it is computed with."""
        return self.rows[0].request.adapters

    def add(self, row: Row, followers: Sequence[Request] = ()) -> None:
        """Add a row.

        Adapters may compute values that are not finite. That has to be noticed before other requests evaluate tokens
        beside them, so with adapters every row has an output.

        Args:
            row: What to evaluate.
            followers: Requests that sample from the outputs of the row as well; all have started.
        """
        request, tokens, outputs = row
        assert request.lease is not None
        sequence = request.lease.sequence
        assert sequence.seq_id is not None
        for output in outputs:
            for owner in (request, *followers):
                assert owner.sampler is not None
                self._outputs.append(Output(self.n_tokens + output, owner.sampler, owner))
        is_probed = not outputs and bool(request.adapters.key)
        if is_probed:
            self._outputs.append(Output(self.n_tokens + len(tokens) - 1, self._probe, request, is_probe=True))
        self._space.add_sequence(tokens, len(sequence.tokens), sequence.seq_id, bool(outputs) or is_probed)
        self.rows.append(row)
        self.n_tokens += len(tokens)
        self.n_generating += len(tokens) == 1 and bool(request.answer.tokens)

    def run(self, context: LlamaContext, vocab: LlamaVocab) -> int:
        """Evaluate the rows, and sample their outputs.

        Returns:
            ``DONE``, ``NO_SPACE`` if there are too few cells, or ``ABORTED``: then nothing was sampled.
        """
        started = perf_counter()
        status, tokens, errors = context.decode_and_sample(self._space, [output[:2] for output in self._outputs])
        self.seconds = perf_counter() - started
        for i, (output, token) in enumerate(zip(self._outputs, tokens, strict=status == DONE)):
            request = output.request
            if i in errors:
                self.samples.append(Sample(request, token, failure=_failure(errors[i])))
                if request.sequence is not None and math.isnan(context.get_logprobs_ith(output.position, 0)[0]):
                    self.not_finite.append(request.sequence)
            elif not output.is_probe:
                n_top = request.config.logprobs
                logprob = None if n_top is None else read_logprobs(context, vocab, output.position, token, n_top)
                self.samples.append(Sample(request, token, logprob))
        return status


def _failure(error: Exception) -> DecodeError | GrammarError:
    """Return why a request fails whose sampler raised ``error``."""
    return GrammarError(str(error)) if isinstance(error, ValueError) else DecodeError(str(error))
