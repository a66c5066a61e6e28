"""One response of the responses of all replicas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from .replica import REPLICA_HEADER, Message


def merge_sessions(answers: Sequence[Iterable[Message]]) -> Response:
    """Return the sessions of all replicas, the latest first; or the error of one."""
    found = [_read(answer) for answer in answers]
    failed = next((each for each in found if each.status_code != 200), None)
    if failed is not None:
        return failed
    sessions = [session for each in found for session in json.loads(bytes(each.body))["data"]]
    sessions.sort(key=lambda session: session["last_used_at"], reverse=True)
    return JSONResponse({"object": "list", "data": sessions})


def merge_metrics(answers: Sequence[Iterable[Message]]) -> Response:
    """Return the metrics of all replicas, each with the label `replica`; or the error of one."""
    found = [_read(answer) for answer in answers]
    failed = next((each for each in found if each.status_code != 200), None)
    if failed is not None:
        return failed
    registry = CollectorRegistry()
    registry.register(_Merged({each.headers[REPLICA_HEADER]: bytes(each.body).decode() for each in found}))
    text = generate_latest(registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


class _Merged(Collector):
    """Metrics of several texts, by the replica of each."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, with the samples of all texts."""
        merged: dict[str, Metric] = {}
        for replica, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                metric = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    metric.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
        yield from merged.values()


def _read(messages: Iterable[Message]) -> Response:
    """Return the response that messages of ASGI are."""
    status, headers, body = 500, {}, b""
    for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            body += message.get("body", b"")
    headers.pop("content-length", None)
    return Response(body, status, headers)
