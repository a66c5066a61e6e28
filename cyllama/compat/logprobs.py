"""Log probabilities of tokens in OpenAI's two forms."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from ..response import TokenLogprob
from .types import ChatCompletionLogprobs, ChatCompletionTopLogprobToken, CompletionLogprobs


class CompletionTokens:
    """The tokens of one text, whole or in pieces, with the places of their texts.

    Args:
        start: Characters before the text.
    """

    def __init__(self, start: int) -> None:
        self._place = start
        self._end = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def of(self, text: str, tokens: Sequence[TokenLogprob] | None) -> CompletionLogprobs | None:
        """Return the tokens of the next piece of the text; those that begin after its end ended the generation."""
        self._end += len(text)
        if tokens is None:
            return None
        result: CompletionLogprobs = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token in tokens:
            place = self._place
            self._place += len(self._decoder.decode(token.bytes))
            if place < self._end:
                result["text_offset"].append(place)
                result["token_logprobs"].append(token.logprob)
                result["tokens"].append(token.token)
                result["top_logprobs"].append({each.token: each.logprob for each in (*token.top, token)})
        return result


def chat_logprobs(tokens: Iterable[TokenLogprob] | None, ends: frozenset[int]) -> ChatCompletionLogprobs | None:
    """Return the tokens of an answer without those that end a generation."""
    if tokens is None:
        return None
    return {
        "content": [
            {**_token(token), "top_logprobs": [_token(each) for each in token.top]}
            for token in tokens
            if token.token_id not in ends
        ],
        "refusal": None,
    }


def _token(token: TokenLogprob) -> ChatCompletionTopLogprobToken:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}
