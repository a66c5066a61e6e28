"""What an operator reads at /metrics of answers with drafted tokens."""

from __future__ import annotations

from cyllama import LLM
from cyllama.models import TINY_CHAT
from cyllama_server.metrics import Metrics

from ..support.drafts import free_drafts
from ..support.harness import turn


def test_drafted_and_accepted_tokens_are_counted():
    with free_drafts(), LLM(TINY_CHAT, speculation="lookup", temperature=0) as llm:
        metrics = Metrics(lambda: {"tiny": llm})
        answers = [llm(turn("Write fox fox fox."), max_tokens=80) for _ in range(2)]
        for answer in answers:
            metrics.count_answer("tiny", answer.usage, answer.timings)
    drafted, accepted = (sum(getattr(a.timings, f"tokens_{name}") for a in answers) for name in ("drafted", "accepted"))
    assert drafted >= accepted > 0
    lines = metrics.text().decode().splitlines()
    assert f'cyllama_drafted_tokens_total{{model="tiny"}} {float(drafted)}' in lines
    assert f'cyllama_accepted_tokens_total{{model="tiny"}} {float(accepted)}' in lines
