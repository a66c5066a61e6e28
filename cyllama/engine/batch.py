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
        outputs: After which of these tokens the next one is sampled: the last one of several, and those of them that
            are drafted, one after the other as long as the draft is right.
    """

    request: Request
    tokens: list[int]
    outputs: tuple[int, ...]


class Output(NamedTuple):
    """A token to be sampled.

    Attributes:
        position: After which token of the batch.
        sampler: What chooses it.
        n_drafted: How many of the next tokens of the batch are drafts of what is sampled.
        request: Whose next token it is.
        is_probe: Whether it is sampled only to see whether the logits are finite.
    """

    position: int
    sampler: LlamaSampler
    n_drafted: int
    request: Request
    is_probe: bool = False


class Sample(NamedTuple):
    """A next token of a request, or why sampling it failed; ``is_drafted`` where the one before was drafted."""

    request: Request
    token: int
    is_drafted: bool
    logprob: TokenLogprob | None = None
    failure: DecodeError | GrammarError | None = None


class Batch:
    """The rows of one step, all of them computed with the same adapters.

    Attributes:
        rows: What each request has evaluated.
        n_tokens: How many tokens all rows have.
        n_generating: How many requests have a token of their answer evaluated, and no prompt.
        n_drafted: How many tokens were drafted.
        samples: The tokens that were sampled by :meth:`run`.
        n_wrong: How many tokens at the end of its row were drafted wrongly, by request.
        not_finite: Sequences after which the logits are not finite numbers.
        seconds: How long it took.
    """

    def __init__(self, space: LlamaBatch, probe: LlamaSampler) -> None:
        """Begin an empty batch in ``space``; ``probe`` is any sampler without a state."""
        space.clear()
        self.rows: list[Row] = []
        self.n_tokens = 0
        self.n_generating = 0
        self.n_drafted = 0
        self.n_wrong: dict[Request, int] = {}
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
        n_drafted = max(0, len(outputs) - 1)
        if outputs:
            for owner in (request, *followers):
                assert owner.sampler is not None
                self._outputs.append(Output(self.n_tokens + outputs[0], owner.sampler, n_drafted, owner))
        is_probed = len(outputs) != 1 and bool(request.adapters.key)
        if is_probed:
            self._outputs.append(Output(self.n_tokens + len(tokens) - 1, self._probe, 0, request, is_probe=True))
        has_output = bool(outputs) or is_probed
        if tokens[0] < 0:
            self._add_image(request, len(tokens), len(sequence.tokens), sequence.seq_id, has_output)
        else:
            self._space.add_sequence(tokens, len(sequence.tokens), sequence.seq_id, has_output, n_drafted > 0)
        self.rows.append(row)
        self.n_tokens += len(tokens)
        self.n_generating += len(tokens) == 1 + n_drafted and bool(request.answer.tokens)
        self.n_drafted += n_drafted

    def _add_image(self, request: Request, n: int, place: int, seq_id: int, has_output: bool) -> None:
        """Add cells of an image, which have a batch of their own."""
        run = request.image_run
        assert run is not None
        embeddings = request.embeddings[run.image.key].result()
        self._space.set_embeddings(embeddings, run.first, n, place, seq_id, has_output, whole=run.image.whole)

    def run(self, context: LlamaContext, vocab: LlamaVocab) -> int:
        """Evaluate the rows, and sample their outputs.

        Returns:
            ``DONE``, ``NO_SPACE`` if there are too few cells, or ``ABORTED``: then nothing was sampled.
        """
        started = perf_counter()
        status, sampled, errors = context.decode_and_verify(self._space, [output[:3] for output in self._outputs])
        self.seconds = perf_counter() - started
        for i, (output, tokens) in enumerate(zip(self._outputs, sampled, strict=status == DONE)):
            request = output.request
            if not output.is_probe:
                self._take(output, tokens, context, vocab)
            if i in errors:
                self.samples.append(Sample(request, -1, bool(tokens), failure=_failure(errors[i])))
                failed_at = output.position + len(tokens)
                if request.sequence is not None and math.isnan(context.get_logprobs_ith(failed_at, 0)[0]):
                    self.not_finite.append(request.sequence)
        return status

    def _take(self, output: Output, tokens: Sequence[int], context: LlamaContext, vocab: LlamaVocab) -> None:
        """Take what was sampled for a request."""
        request, n_top = output.request, output.request.config.logprobs
        self.n_wrong[request] = output.n_drafted - max(0, len(tokens) - 1)
        for i, token in enumerate(tokens):
            logprob = None if n_top is None else read_logprobs(context, vocab, output.position + i, token, n_top)
            self.samples.append(Sample(request, token, i > 0, logprob))


def _failure(error: Exception) -> DecodeError | GrammarError:
    """Return why a request fails whose sampler raised ``error``."""
    return GrammarError(str(error)) if isinstance(error, ValueError) else DecodeError(str(error))
