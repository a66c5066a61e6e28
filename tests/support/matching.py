"""Whether a grammar allows a text, asked of the grammar's sampler itself."""

from __future__ import annotations

from cyllama.llama.llama_cpp import LlamaModel, LlamaSampler


class Matcher:
    """Matches texts with grammars.

    Args:
        model: Whose tokens the texts are made of.
    """

    def __init__(self, model: LlamaModel) -> None:
        self._vocab = model.vocab
        self._end = self._vocab.eos

    def __call__(self, grammar: str, text: str) -> bool:
        """Whether the grammar allows just this text."""
        return self.reach(LlamaSampler.grammar(self._vocab, grammar), text) == len(text.encode()) + 1

    def reach(self, sampler: LlamaSampler, text: str) -> int:
        """Return how many bytes of a text a fresh sampler of a grammar allows; one more if it may end there."""
        data = text.encode()
        done = 0
        for token in [*self.tokens(text), self._end]:
            try:
                sampler.accept([token])
            except RuntimeError:
                return done
            done += len(self._vocab.token_to_piece(token, special=False)) if token != self._end else 1
        assert done == len(data) + 1
        return done

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, without a space before it."""
        tokens = self._vocab.tokenize(text, add_special=False, parse_special=False)
        spaced = b"".join(self._vocab.token_to_piece(token, special=False) for token in tokens)
        if spaced != text.encode():
            tokens = [*self._vocab.tokenize(text[:1], add_special=False, parse_special=False), *self.tokens(text[1:])]
        return tokens
