"""Preparing a chat with many tools leaves other threads their time, and is done once."""

from __future__ import annotations

import threading
from typing import Any

from cyllama.chat import ChatTemplates, tools

from ..support.families import FAMILIES

USER = {"role": "user", "content": "Hello"}


def many_tools(n: int) -> list[dict[str, Any]]:
    values = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}}
    properties = {f"p{i}": {"type": "string", "enum": ["x", "y"]} if i % 2 else values for i in range(6)}
    parameters = {"type": "object", "properties": properties, "required": ["p0"]}
    return [{"name": f"tool_{i}", "description": f"Does {i}.", "parameters": parameters} for i in range(n)]


def test_the_same_tools_are_converted_once(templates: ChatTemplates):
    offered = many_tools(24)
    first = templates.prepare([USER], tools=offered)
    before = tools._convert.cache_info()
    second = templates.prepare([USER, {"role": "assistant", "content": "Hi"}, USER], tools=offered)
    after = tools._convert.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + len(offered))
    assert first.grammar is not None
    assert second.grammar == first.grammar


def test_other_threads_run_while_a_template_is_analyzed(templates: ChatTemplates):
    """This thread may be late for other reasons, too: it has to have its turns beside one of several preparations."""
    template = FAMILIES["llama3"].template
    templates.get(template)
    finished, turns, beside = threading.Event(), 0, list[int]()

    def prepare() -> None:
        try:
            while max(beside, default=0) <= 20 and len(beside) < 50:
                before = turns
                templates.prepare([USER], tools=many_tools(48), chat_template=template)
                beside.append(turns - before)
        finally:
            finished.set()

    thread = threading.Thread(target=prepare)
    thread.start()
    while not finished.wait(0.001):
        turns += 1
    thread.join()
    assert max(beside) > 20
