"""Grammars of schemas as rules that can stand beside those of other schemas."""

from __future__ import annotations

import re
from typing import Any

from ..grammar import Conversion, convert

Rules = dict[str, str]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|[A-Za-z0-9-]+', re.DOTALL)


_SHARED = re.compile(r"schema-[a-z]")


def schema_rules(schema: Any, prefix: str) -> tuple[str, Rules]:
    """Return the rule of a value, and all rules that it consists of.

    Args:
        schema: A JSON schema, or one that is converted already.
        prefix: What the names of the rules begin with.
    """
    conversion = schema if isinstance(schema, Conversion) else convert(schema, number=0, tolerant=True)
    return renamed(conversion.root, conversion.rules, prefix)


def renamed(root: str, rules: Rules, prefix: str) -> tuple[str, Rules]:
    """Return rules with other names, except for those that all schemas share."""
    names = {name: name if _SHARED.match(name) else prefix + name for name in rules}
    return names[root], {names[name]: replace_names(body, names) for name, body in rules.items()}


def replace_names(body: str, names: dict[str, str]) -> str:
    """Return the body of a rule with other names of rules in it."""
    return _TOKEN.sub(lambda match: names.get(match[0], match[0]), body)


def references(body: str) -> list[str]:
    """Return the names of rules in a body."""
    return [token for token in _TOKEN.findall(body) if token[0] not in '"[{']
