"""Templates come with models from anywhere: whatever they do, it ends with a prompt or an error."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from cyllama import LLM, ChatTemplateError
from cyllama.chat import ChatTemplates

from .families import FAMILIES, TOOLS

USER = {"role": "user", "content": "Hello"}

ENDLESS, STEPS, MEMORY = "without end|too deep", "too many steps", "too much memory"
_NS = "{% set ns = namespace(x=[1], t=(1, 2), s='a') %}"
_TIMES_60 = "{% for i in range(60) %}"
_SELF = "{% set _ = messages.append(messages) %}"

#: Templates that take without end of something, and what the error says.
GREEDY = {
    "a list in itself": (_SELF + "{{ messages }}", ENDLESS),
    "a list in itself as JSON": (_SELF + "{{ messages | tojson }}", ENDLESS),
    "a list in itself as text": (_SELF + "{{ messages | string }}", ENDLESS),
    "an object in itself as JSON": (_NS + "{% set ns.x = ns %}{{ ns | tojson }}", ENDLESS),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ENDLESS),
    "a default that calls its macro": ("{% macro f(x=f()) %}{% endmacro %}{{ f() }}", ENDLESS),
    "a text many times": ("{{ 'x' * 1000000000 }}", MEMORY),
    "a wide indentation": ("{{ 'a\nb' | indent(4000000000) }}", MEMORY),
    "JSON with a wide indentation": ("{{ messages | tojson(indent=1000000000) }}", MEMORY),
    "a text between all letters": ("{{ ('x' * 1000000) | replace('', 'y' * 1000000) }}", MEMORY),
    "numbers up to the last one": ("{{ range(-9223372036854775807, 9223372036854775807, 3) }}", MEMORY),
    "numbers beyond the last one": ("{{ range(9223372036854775800, 9223372036854775807, 5) }}", MEMORY),
    "a text twice as long each time": (_NS + _TIMES_60 + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}", MEMORY),
    "a long text many times": (
        "{% set s = 'a' * 10000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}",
        f"{MEMORY}|{STEPS}",
    ),
    "a list of the same list": (
        _NS + _TIMES_60 + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        f"{MEMORY}|{STEPS}",
    ),
    "a key of the same tuple": (_NS + _TIMES_60 + "{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {}[ns.t] }}", STEPS),
    "loops in loops": ("{% for a in range(10000) %}" * 3 + "{% endfor %}" * 3, STEPS),
    "lists in lists": ("{% for a in range(100000) | list %}" * 2 + "{% endfor %}" * 2, f"{MEMORY}|{STEPS}"),
    "a text in a text": ("{% set s = 'a' * 20000000 %}{{ ('a' * 10000000 ~ 'b') in s }}", STEPS + "|" + MEMORY),
    "tests of a long text": (
        "{% set s = 'a' * 300000 %}{% for i in range(100000) %}{{ s is lower }}{% endfor %}",
        STEPS,
    ),
    "the largest of a long list": (
        "{% set l = range(50000) %}{% for i in range(99999) %}{{ l | max }}{% endfor %}",
        STEPS,
    ),
}

#: Templates that crashed a process, and are right, or wrong in a way of their own.
HARMLESS = {
    "{{ [1, 2.5, true, none, 'a'] | tojson }}": None,
    "{{ 5 is divisibleby(0) }}": "division by zero",
    "{{ [1, 2] | select('divisibleby', 0) | list }}": "division by zero",
    "{{ (0 - 9223372036854775807 - 1) is divisibleby(0 - 1) }}": None,
    "{{ 'x'" + " | upper" * 2000 + " }}": None,
    "{{ ('x ' * 5000).split(' ') | length }}": None,
    "{{ ('x ' * 5000).rsplit(' ') | length }}": None,
    "{{ ('x ' * 5000) | replace(' ', '') | length }}": None,
    "{{ ('x' * 5000).strip('yx') | length }}": None,
    _NS + "{% for i in range(2000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ 1 }}": None,
    _NS + "{% for i in range(300) %}{% set _ = ns.x.append(['nan' | float, i, i | string][i % 3]) %}{% endfor %}"
    "{{ ns.x | sort | length }}": None,
    "{{ {'b': 'nan' | float, 'a': 1} | dictsort }}": None,
    "{{ [1, 2, 3][::4611686018427387904] }}": None,
    "{{ 1 / 0 }}{{ 1 % 0 }}": None,
    "{{ " + "not " * 3000 + "1 }}": None,
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": None,
}


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


@pytest.mark.slow
def test_what_greedy_templates_take_is_bounded():
    program = """if True:
        import resource
        from cyllama import LLM, ChatTemplateError
        from tests.chat.test_template_limits import GREEDY, USER
        llm = LLM()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for source, _ in GREEDY.values():
            try:
                llm.render([USER], chat_template=source)
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

_NAMES = ("messages", "m", "ns", "x", "f", "tools", "bos_token", "loop", "messages[0].content", "m.role", "undefined")
_LITERALS = (
    "1",
    "0",
    "-1",
    "2.5",
    "'a'",
    "'nan' | float",
    "[]",
    "{}",
    "(1, 2)",
    "none",
    "true",
    "9223372036854775807",
    "''",
)
_FILTERS = [
    "upper",
    "lower",
    "trim",
    "string",
    "int",
    "float",
    "abs",
    "list",
    "length",
    "first",
    "last",
    "tojson",
    "sort",
    "reverse",
    "unique",
    "join",
    "items",
    "keys",
    "values",
    "max",
    "min",
    "title",
    "capitalize",
    "dictsort",
    "safe",
    "default('x')",
    "replace('a','bb')",
    "split('a')",
    "indent(3)",
    "select('odd')",
    "selectattr('role')",
    "rejectattr('role')",
    "map(attribute='role')",
    "tojson(indent=2)",
    "tojson(ensure_ascii=true)",
    "round",
    "batch(2)",
    "sum",
    "count",
]
_TESTS = [
    "defined",
    "none",
    "string",
    "number",
    "odd",
    "even",
    "lower",
    "mapping",
    "iterable",
    "divisibleby(2)",
    "eq(1)",
    "in(x)",
    "true",
    "sequence",
]
_OPERATORS = ("+", "-", "*", "/", "%", "~", "==", "!=", "<", ">", "in", "not in", "and", "or")


def random_expression(rng: random.Random, depth: int) -> str:
    """Return an expression, most often one that means something."""
    if depth <= 0:
        return rng.choice(_NAMES + _LITERALS)
    part = [random_expression(rng, depth - rng.randint(1, 2)) for _ in range(3)]
    return rng.choice(
        [
            f"({part[0]} | {rng.choice(_FILTERS)})",
            f"({part[0]} {rng.choice(_OPERATORS)} {part[1]})",
            f"({part[0]} is {rng.choice(_TESTS)})",
            f"({part[0]} if {part[1]} else {part[2]})",
            f"[{part[0]}, {part[1]}]",
            f"{{'a': {part[0]}, {part[1]}: {part[2]}}}",
            f"({part[0]})[{part[1]}]",
            f"({part[0]})[{part[1]}:{part[2]}]",
            f"f({part[0]})",
            f"({part[0]}).append({part[1]})",
            f"range({part[0]})",
            f"namespace(a={part[0]})",
            f"(not {part[0]})",
            rng.choice(_NAMES),
        ]
    )


def random_template(rng: random.Random, depth: int = 3) -> str:
    """Return a template of a few statements, some in others."""
    parts = []
    for _ in range(rng.randint(1, 1 + depth)):
        one, other = random_expression(rng, depth), random_expression(rng, depth)
        body = random_template(rng, depth - 2) if depth > 1 else "text"
        parts.append(
            rng.choice(
                [
                    f"{{{{ {one} }}}}",
                    f"{{% set x = {one} %}}",
                    f"{{% set ns = namespace(x={one}) %}}{{% set ns.x = {other} %}}",
                    f"{{% for m in {one} %}}{body}{{% endfor %}}",
                    f"{{% for m in messages if {one} %}}{body}{{% else %}}{body}{{% endfor %}}",
                    f"{{% if {one} %}}{body}{{% else %}}{{{{ {other} }}}}{{% endif %}}",
                    f"{{% macro f(a, b={one}) %}}{body}{{% endmacro %}}{{{{ f({other}) }}}}",
                    f"{{% filter {rng.choice(_FILTERS)} %}}{body}{{% endfilter %}}",
                    f"{{% call f({one}) %}}{body}{{% endcall %}}",
                    f"{{% set x %}}{body}{{% endset %}}",
                ]
            )
        )
    return "".join(parts)


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
