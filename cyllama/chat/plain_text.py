"""From the grammar of JSON strings to that of the same texts as they are."""

from __future__ import annotations

import re

from .schema_rules import Rules, references, replace_names

_QUOTED = re.compile(r'"\\"" (.*) "\\""(?: space)?', re.DOTALL)
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\\\(?:([bfnrt])|(\\\\|\\")|u([0-9a-f]{4}))')
_CONTROL = {"b": r"\x08", "f": r"\x0C", "n": r"\n", "r": r"\r", "t": r"\t"}
_ANY = re.compile(r'\["\\\\/bfnrt\]')  # in the rule of any character


def plain_rules(root: str, rules: Rules, delimiter: str, prefix: str) -> tuple[str, Rules] | None:
    """Return the rules of texts, or ``None`` if they cannot be derived from those of JSON strings.

    Args:
        root: The rule of the JSON strings.
        rules: All rules that it consists of.
        delimiter: What ends a text. Its first character that is not white space is left out of any character.
        prefix: What the names of the rules begin with.
    """
    body = rules[root]
    while body.strip() in rules:
        body = rules[body.strip()]
    body = _without_parentheses(body)
    quoted = _QUOTED.fullmatch(body)
    if quoted is None or '"\\""' in quoted[1]:
        return None
    result: Rules = {}
    names: dict[str, str] = {}
    waiting = [("text", quoted[1])]
    while waiting:
        name, body = waiting.pop()
        for other in references(body):
            if other in rules and other not in names:
                names[other] = f"{prefix}{len(names)}"
                waiting.append((names[other].removeprefix(prefix), rules[other]))
        if _ANY.search(body):
            body = f"[^{_class(delimiter)}]"
        result[prefix + name] = replace_names(_LITERAL.sub(_plain, body), names)
    return prefix + "text", result


def _plain(match: re.Match[str]) -> str:
    def unescape(escape: re.Match[str]) -> str:
        if escape[1]:
            return _CONTROL[escape[1]]
        return escape[2] or f"\\x{int(escape[3], 16):02X}"

    return '"' + _ESCAPE.sub(unescape, match[1]) + '"'


def _class(delimiter: str) -> str:
    character = delimiter.strip()[:1]
    return f"\\{character}" if character in "]\\^-[" else character


def _without_parentheses(body: str) -> str:
    body = body.strip()
    while body.startswith("( ") and body.endswith(" )") and _is_one_group(body):
        body = body[2:-2].strip()
    return body


def _is_one_group(body: str) -> bool:
    depth = 0
    for i, character in enumerate(re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: "x" * len(match[0]), body)):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i == len(body) - 1
    return False
