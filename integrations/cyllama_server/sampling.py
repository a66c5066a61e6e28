"""The sampling parameters of requests, by OpenAI's names and by those of llama-server, as options of cyllama."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cyllama import LLM

from .errors import ApiError

MAX_SEED = 2**32 - 1
MAX_STOPS = 64

#: Names of llama-server for options that cyllama calls otherwise.
_OTHER_NAMES = {"repeat_last_n": "penalty_last_n", "typ_p": "typical_p"}
_SAME_NAMES = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "frequency_penalty", "presence_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers",
    "xtc_probability", "xtc_threshold", "top_n_sigma", "samplers", "mirostat", "mirostat_tau", "mirostat_eta",
    "ignore_eos", "speculation",
)  # fmt: skip


class Sampling(BaseModel):
    """The parameters of a request that say how its answer is sampled. Those that are `null` have their defaults."""

    model_config = ConfigDict(strict=True, extra="ignore")

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n_predict: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | list[list[Any]] | None = None

    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    typ_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    top_n_sigma: float | None = None
    samplers: list[str] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    ignore_eos: bool | None = None
    speculation: str | None = None
    n_probs: int | None = Field(None, ge=0, le=1000)
    lora: dict[str, float] | list[dict[str, Any]] | None = None

    def options(self, llm: LLM, *, limit: int | None) -> dict[str, Any]:
        """Return the options of a call.

        Args:
            llm: The model.
            limit: Most tokens of any answer.

        Raises:
            ApiError: A parameter is not valid.
        """
        found: dict[str, Any] = {"max_tokens": self._most_tokens(limit)}
        for name in (*_SAME_NAMES, *_OTHER_NAMES):
            value = getattr(self, name)
            if value is not None:
                found[_OTHER_NAMES.get(name, name)] = value
        if self.seed is not None and self.seed >= 0:  # llama-server's -1 is any seed
            found["seed"] = self.seed % MAX_SEED
        if self.stop:
            found["stop_sequences"] = self._stops()
        if self.logit_bias:
            found["logit_bias"] = _biases(self.logit_bias, llm)
        if self.lora:
            found["lora"] = _adapters(self.lora)
        return found

    def _most_tokens(self, limit: int | None) -> int | None:
        given = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        wanted = next((value for value in given if value is not None), None)
        if wanted is None or wanted == -1:
            return limit
        if wanted < 1:
            raise ApiError(400, f"max_tokens: expected at least 1, not {wanted}", param="max_tokens")
        return wanted if limit is None else min(wanted, limit)

    def _stops(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        if len(stops) > MAX_STOPS:
            raise ApiError(400, f"stop: expected at most {MAX_STOPS} texts, not {len(stops)}", param="stop")
        return [stop for stop in stops if stop]


def _biases(given: dict[str, float] | list[list[Any]], llm: LLM) -> dict[int, float]:
    """Return biases by token: OpenAI's dict, or llama-server's pairs of a token or a text, and a bias or `false`."""
    pairs = given.items() if isinstance(given, dict) else given
    biases: dict[int, float] = {}
    for pair in pairs:
        if len(pair) != 2:
            raise ApiError(
                400, f"logit_bias: expected pairs of a token and a bias, not {pair!r:.80}", param="logit_bias"
            )
        token, bias = pair
        bias = float("-inf") if bias is False else bias
        if isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise ApiError(400, f"logit_bias: a bias is a number, not {bias!r:.80}", param="logit_bias")
        for each in _token_ids(token, llm, of_dict=isinstance(given, dict)):
            biases[each] = float(bias)
    return biases


def _token_ids(token: Any, llm: LLM, *, of_dict: bool) -> list[int]:
    if isinstance(token, str) and not of_dict:
        return llm.tokenize(token, add_bos=False)
    if isinstance(token, str) and token.isascii() and token.isdecimal() and len(token) < 12:
        return [int(token)]
    if isinstance(token, int) and not isinstance(token, bool) and token >= 0:
        return [token]
    raise ApiError(400, f"logit_bias: expected the id of a token, not {token!r:.80}", param="logit_bias")


def _adapters(given: dict[str, float] | list[dict[str, Any]]) -> dict[str, float]:
    """Return scales by name: a dict, or llama-server's list of objects with `id` and `scale`."""
    if isinstance(given, dict):
        return given
    scales: dict[str, float] = {}
    for each in given:
        name, scale = each.get("id"), each.get("scale", 1.0)
        if isinstance(name, bool) or not isinstance(name, (str, int)) or not isinstance(scale, (int, float)):
            raise ApiError(400, f"lora: expected objects with 'id' and 'scale', not {each!r:.80}", param="lora")
        scales[str(name)] = float(scale)
    return scales
