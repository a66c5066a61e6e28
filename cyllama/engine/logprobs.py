"""Log probabilities of sampled tokens."""

from __future__ import annotations

from ..llama.llama_cpp import LlamaContext, LlamaVocab
from ..response import TokenLogprob


def read_logprobs(context: LlamaContext, vocab: LlamaVocab, index: int, token: int, n_top: int) -> TokenLogprob:
    """Return the log probability of a sampled token, and those of the most likely tokens at its place.

    Args:
        context: The context that decoded the last batch.
        vocab: The vocabulary of its model.
        index: The index in that batch of the token before the sampled one.
        token: The id of the sampled token.
        n_top: How many of the most likely tokens; more than the vocabulary has means all.
    """
    logprob, likeliest = context.get_logprobs_ith(index, token, min(n_top, vocab.n_tokens))
    top = tuple(_token_logprob(vocab, *pair) for pair in likeliest)
    return _token_logprob(vocab, token, logprob, top)


def _token_logprob(vocab: LlamaVocab, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    piece = vocab.token_to_piece(token, special=True)
    return TokenLogprob(piece.decode(errors="replace"), token, logprob, piece, top)
