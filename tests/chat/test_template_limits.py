"""Templates come with models from anywhere: whatever they do, it ends with a prompt or an error."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest

from cyllama import LLM, ChatTemplateError
from cyllama.chat import ChatTemplates

from ..fuzz.generators.templates import random_template
from ..support.families import FAMILIES, TOOLS
from ..support.odd_templates import GREEDY, HARMLESS

USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize("name", GREEDY)
def test_a_template_that_takes_without_end_is_refused(name: str, templates: ChatTemplates):
    source, reason = GREEDY[name]
    with pytest.raises(ChatTemplateError, match=reason):
        templates.render([USER], chat_template=source)
    assert templates.render([USER], chat_template="{{ messages[0].content }}") == "Hello"


@pytest.mark.parametrize("source", HARMLESS, ids=lambda source: source[:40])
def test_a_template_that_is_odd_is_rendered_or_refused(source: str, templates: ChatTemplates):
    reason = HARMLESS[source]
    if reason is None:
        templates.render([USER], chat_template=source)
        return
    with pytest.raises(ChatTemplateError, match=reason):
        templates.render([USER], chat_template=source)


def test_numbers_are_written_as_numbers(templates: ChatTemplates):
    source = "{{ {'a': [1, 2.5, -3]} | tojson }} {{ 4 }} {{ 5 | string }}"
    assert templates.render([USER], chat_template=source) == '{"a": [1, 2.5, -3]} 4 5'


def test_numbers_keep_their_value(templates: ChatTemplates):
    rng = random.Random(1)
    drawn = [rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(100)]
    numbers = [0.1, 0.1234567890123, 1e-9, 1e20, 1e16, -0.0, 5e-324, 1.7976931348623157e308, *drawn]
    variables = {"numbers": numbers}
    text = templates.render([USER], chat_template="{{ numbers | tojson }}", chat_template_kwargs=variables)
    assert json.loads(text) == numbers
    text = templates.render([USER], chat_template="{{ numbers | join(' ') }}", chat_template_kwargs=variables)
    assert [float(word) for word in text.split()] == numbers


@pytest.mark.slow
def test_what_greedy_templates_take_is_bounded():
    program = """if True:
        import resource
        from cyllama import LLM, ChatTemplateError
        from tests.support.odd_templates import GREEDY
        llm = LLM()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for source, _ in GREEDY.values():
            try:
                llm.render([{"role": "user", "content": "Hello"}], chat_template=source)
            except ChatTemplateError:
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 512 * 1024


@pytest.mark.parametrize("name", FAMILIES)
def test_long_chats_and_large_tools_are_not_refused(name: str, templates: ChatTemplates):
    family = FAMILIES[name]
    turns = [USER, {"role": "assistant", "content": "Well. " * 50}] * 150
    tools = [] if family.own_tools else [{**TOOLS[0]["function"], "name": f"f{i}"} for i in range(64)]
    prompt = templates.render([*turns, USER], tools=tools, chat_template=family.template)
    assert prompt.count("Hello") >= 151
    long: list[dict[str, Any]] = [{"role": "user", "content": "A line of text.\n" * 50_000}]
    assert len(templates.render(long, chat_template=family.template)) > 700_000


# ----------------------------------------------------------------------------------------------------- random templates


def run_random_templates(llm: LLM, seeds: range) -> int:
    """Render a random template for each seed; return how many were rendered."""
    rendered = 0
    for seed in seeds:
        source = random_template(random.Random(seed), depth=seed % 4)
        try:
            llm.render(
                [USER, {"role": "assistant", "content": "a b"}, USER], tools=TOOLS, chat_template=source + "{{ 1 }}"
            )
            rendered += 1
        except ChatTemplateError:
            continue
    return rendered


def test_random_templates_are_rendered_or_refused(llm: LLM):
    assert run_random_templates(llm, range(200)) > 10
