"""Grammars as text, JSON schemas, and texts under them."""

from __future__ import annotations

import json
import random
from typing import Any

from cyllama.llama.llama_cpp import LlamaSampler, check_grammar, json_schema_to_grammar

from ..registry import Case
from ._models import open_model


def _rules(n: int, rule: str, last: str) -> str:
    lines = [f"r{i} ::= " + rule.format(next=f"r{i + 1}") for i in range(n)]
    return "\n".join(["root ::= r0", *lines, f"r{n} ::= {last}"])


SEEDS: list[Case] = [
    {"grammar": grammar, "tokens": tokens}
    for grammar, tokens in (
        ('root ::= "(" root ")" | "(" root "]"', [12] * 40),
        (_rules(16, '{next} "a" | {next} "b"', '"x"'), []),
        ("root ::= " + '"a"? ' * 1500, []),
        (_rules(24, "{next} {next}", '""'), []),
        (_rules(40, "{next} {next} | {next} {next}", '"" | "x"'), []),
        ('root ::= "' + "a" * 2000 + '"{1999}', []),
        ('root ::= "a"{5,2}', []),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, []),
        ("root ::= <[99999999999999999999]>", []),
        ('root ::= "a"{99999999999999999999}', []),
        ('root ::= x\nx ::= "" x', []),
        ("root ::= ([a-z] | [a-y] | [b-z])*", list(range(300, 340))),
        ("root ::= (!<[5]> | <[6]> | [é-ü])*", [5, 6, 7, 200]),
    )
] + [
    {"schema": schema, "tokens": []}
    for schema in (
        '{"type": "string", "pattern": "^(a' + "😀" * 60 + '$"}',
        '{"a": "' + "😀" * 60,
        '{"type": "string", "pattern": "^a{99999999999}$"}',
        '{"type": "integer", "minimum": 99999999999999999999}',
        '{"type": "array", "items": {"type": "null"}, "minItems": 99999999999999999999}',
        json.dumps({"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}, "allOf": [{"$ref": "#/b"}]}),
    )
]


def generate(rng: random.Random) -> Case:
    """Draw a grammar of a few rules, sometimes damaged, or a schema."""
    tokens = [rng.randrange(1280) for _ in range(rng.choice([5, 30, 100]))]
    if rng.random() < 0.25:
        return {"schema": json.dumps(_schema(rng, 0)), "tokens": tokens}
    n = rng.choice([1, 2, 4, 8, 30])
    names = ["root", *(f"r{i}" for i in range(n))]
    text = "\n".join(f"{name} ::= {_alternates(rng, names, 0)}" for name in names)
    if rng.random() < 0.2:
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + rng.choice(["", "{", "}", '"', "[", "]", "(", ")", "|", "\\", "é", "<[", "\x00"])
            + text[at + 1 :]
        )
    return {"grammar": text, "tokens": tokens}


def _alternates(rng: random.Random, names: list[str], depth: int) -> str:
    parts = (" ".join(_part(rng, names, depth) for _ in range(rng.randint(0, 4))) for _ in range(rng.randint(1, 3)))
    return " | ".join(parts)


def _part(rng: random.Random, names: list[str], depth: int) -> str:
    kind = rng.randrange(8)
    if kind < 3:
        part = rng.choice(['"a"', '"ab"', '"(" ', '" "', '"é"', '""'])
    elif kind < 5:
        part = rng.choice(["[a-z]", "[^a]", "[abc]", ".", "[a-cb-d]", "[^a-zé]", "[\\x00-\\x1f]"])
    elif kind < 7 or depth > 3:
        part = rng.choice(names) if rng.random() < 0.95 else rng.choice(["<[5]>", "!<[5]>", "nothing"])
    else:
        part = f"({_alternates(rng, names, depth + 1)})"
    if rng.random() < 0.3:
        low = rng.choice([0, 1, 2, 3, 10, 100, 1000, 2000])
        part += rng.choice(
            ["*", "+", "?", f"{{{low}}}", f"{{{low},}}", f"{{{low},{low + rng.choice([0, 1, 5, 1000])}}}"]
        )
    return part


def _schema(rng: random.Random, depth: int) -> Any:
    if depth > 3 or rng.random() < 0.4:
        number = rng.choice([0, 1, -1, 5, 1e6, 1e300, 2**40])
        return rng.choice(
            [
                {"type": "string", "minLength": rng.choice([0, 3, 1000]), "maxLength": rng.choice([0, 5, 10**6])},
                {"type": rng.choice(["integer", "number"]), rng.choice(["minimum", "maximum"]): number},
                {"enum": rng.choices(["a", "b", 1, None, {"x": []}], k=3)},
                {
                    "type": "string",
                    "pattern": rng.choice(["^a*$", "^(a|b){3,}$", "^[^x]+(y?){50}$", "^\\d+$", "^(", "a"]),
                },
                {"type": "string", "format": rng.choice(["date", "uuid", "time", "x"])},
                {"$ref": rng.choice(["#", "#/properties/a", "#/x"])},
                {},
            ]
        )
    if rng.random() < 0.5:
        names = rng.sample("abcdefgh", rng.randint(0, 6))
        return {
            "type": "object",
            "properties": {name: _schema(rng, depth + 1) for name in names},
            "required": [name for name in names if rng.random() < 0.5],
            "additionalProperties": rng.choice([True, False, {"type": "integer"}]),
        }
    if rng.random() < 0.5:
        return {"type": "array", "items": _schema(rng, depth + 1), "minItems": rng.choice([0, 1, 50]), "maxItems": 60}
    return {rng.choice(["anyOf", "oneOf", "allOf"]): [_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}


def run(case: Case) -> None:
    """Parse the grammar, accept what it allows of the tokens, and begin again."""
    model = open_model("tiny-chat")
    try:
        grammar = json_schema_to_grammar(case["schema"]) if "schema" in case else case["grammar"]
        check_grammar(grammar)
    except ValueError:
        return
    sampler = LlamaSampler.grammar(model.vocab, grammar)
    for token in case["tokens"]:
        try:
            sampler.accept([token])
        except RuntimeError:  # does not fit, or takes too much work
            continue
    sampler.clone().reset()
    sampler.reset()
