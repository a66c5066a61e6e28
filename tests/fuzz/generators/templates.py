"""Chat templates, which come with models from anywhere."""

from __future__ import annotations

import json
import random

from cyllama.llama.llama_cpp import LlamaChatTemplates

from ...support.odd_templates import GREEDY, HARMLESS
from ..registry import Case
from ._models import open_model

MESSAGES = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "a b"},
    {"role": "user", "content": "Hello"},
]

SEEDS: list[Case] = [{"template": source} for source in (*(source for source, _ in GREEDY.values()), *HARMLESS)]

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


def generate(rng: random.Random) -> Case:
    """Draw a template of some depth."""
    return {"template": random_template(rng, depth=rng.randrange(4)) + "{{ 1 }}"}


def run(case: Case) -> None:
    """Compile the template and render a chat by it."""
    try:
        templates = LlamaChatTemplates(open_model("tiny-chat"), case["template"])
        templates.apply(json.dumps(MESSAGES), force_pure_content=True)
        templates.apply(json.dumps(MESSAGES))
    except (RuntimeError, ValueError):
        pass
