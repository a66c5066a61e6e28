"""How likely the model found a token."""

from __future__ import annotations

from ..llama.llama_cpp import LlamaContext, LlamaVocab
from ..response import TokenLogprob


def read_logprobs(context: LlamaContext, vocab: LlamaVocab, index: int, token: int, n_top: int) -> TokenLogprob:
    """Return the log probability of a token that was sampled, and those of the likeliest ones in its place.

    Args:
        context: What decoded the last batch.
        vocab: The vocabulary of its model.
        index: Which token of that batch it follows.
        token: Its id.
        n_top: How many of the likeliest ones; no more than there are.
    """
    logprob, likeliest = context.get_logprobs_ith(index, token, min(n_top, vocab.n_tokens))
    top = tuple(_token_logprob(vocab, *pair) for pair in likeliest)
    return _token_logprob(vocab, token, logprob, top)


def _token_logprob(vocab: LlamaVocab, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    piece = vocab.token_to_piece(token, special=True)
    return TokenLogprob(piece.decode(errors="replace"), token, logprob, piece, top)
