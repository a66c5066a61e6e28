"""What an operator can see, in Prometheus's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cyllama import LLM, Timings, Usage

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_GAUGES = {
    "running": "Generations that are decoded now.",
    "waiting": "Generations that wait.",
    "n_ctx": "Tokens that the context has room for.",
    "kv_cells": "Cells of the KV cache.",
    "kv_cells_used": "Cells of the KV cache in use.",
    "host_bytes": "Bytes of host memory that sessions take which are not in the context.",
    "image_bytes": "Bytes of host memory that images of sessions and their embeddings take.",
    "resident": "Sessions in the context.",
    "swapped": "Sessions in host memory.",
    "dropped": "Sessions that are evaluated again when they go on.",
}


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        loaded: Returns the models that are loaded, by name.
        in_progress: Returns how many requests of each model run or wait, by its name.
    """

    def __init__(
        self, loaded: Callable[[], Mapping[str, LLM]], in_progress: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Models(loaded, in_progress))
        r, labels = self._registry, ["model"]
        self._requests = Counter("cyllama_requests", "Requests.", ["route", "status"], registry=r)
        self._duration = Histogram("cyllama_request_seconds", "Whole time.", ["route"], buckets=_SECONDS, registry=r)
        self._first = Histogram(
            "cyllama_first_token_seconds", "Until the first token.", labels, buckets=_SECONDS, registry=r
        )
        self._queued = Histogram("cyllama_queued_seconds", "Until it ran.", labels, buckets=_SECONDS, registry=r)
        self._prompt = Counter("cyllama_prompt_tokens", "Tokens of prompts.", labels, registry=r)
        self._cached = Counter("cyllama_cached_tokens", "Tokens of prompts in the KV cache.", labels, registry=r)
        self._completion = Counter("cyllama_completion_tokens", "Tokens that were generated.", labels, registry=r)
        self._drafted = Counter("cyllama_drafted_tokens", "Tokens that were drafted and evaluated.", labels, registry=r)
        self._accepted = Counter("cyllama_accepted_tokens", "Drafted tokens that were right.", labels, registry=r)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended. The status is 499 where the client went away before it had an answer."""
        self._requests.labels(route, str(status)).inc()
        self._duration.labels(route).observe(seconds)

    def count_answer(self, model: str, usage: Usage, timings: Timings) -> None:
        """Count an answer that was generated."""
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._completion.labels(model).inc(usage.completion_tokens)
        self._drafted.labels(model).inc(timings.tokens_drafted)
        self._accepted.labels(model).inc(timings.tokens_accepted)
        self._queued.labels(model).observe(timings.queued)
        self._first.labels(model).observe(timings.queued + timings.prompt)

    def text(self) -> bytes:
        """Return all metrics, as Prometheus reads them."""
        return generate_latest(self._registry)


class _Models(Collector):
    """Reads the state of the loaded models when it is asked for."""

    def __init__(self, loaded: Callable[[], Mapping[str, LLM]], in_progress: Callable[[], Mapping[str, int]]) -> None:
        self._loaded = loaded
        self._in_progress = in_progress

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the state of each model."""
        text = "Requests that run or wait: those that max_queue counts."
        yield _family("requests_in_progress", text, self._in_progress())
        stats = {name: llm.stats for name, llm in self._loaded().items()}
        for field, text in _GAUGES.items():
            yield _family(field, text, {name: getattr(values, field) for name, values in stats.items()})


def _family(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """Return a gauge with a value for each model."""
    family = GaugeMetricFamily(f"cyllama_{name}", text, labels=["model"])
    for model, value in values.items():
        family.add_metric([model], value)
    return family
