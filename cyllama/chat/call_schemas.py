"""The grammars of the arguments of calls, by the schemas of the tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..grammar import ResponseFormat
from .arguments import items, properties, required, resolve, value_types
from .plain_text import plain_rules
from .schema_rules import Rules, schema_rules
from .tools import Tool

NAME = "zqnameqz"  # stands for the name of an argument in the text that closes it
_PERMUTED = 4  # up to this number, arguments may come in any order
_LONGEST = 200  # most characters of a plain text that a grammar counts
_TEXT = "text-value"
_CONSTRAINTS = ("pattern", "format", "minLength", "maxLength", "allOf")
_ALTERNATIVES = ("anyOf", "oneOf")


@dataclass(frozen=True)
class ArgumentForm:
    """How one argument is written, in GBNF.

    Attributes:
        prefix: What its name follows.
        suffix: What a string follows.
        value_suffix: What any other value follows.
        close: What it ends with; :data:`NAME` stands for its name.
        delimiter: The text that ends a string which is written as it is; empty where strings are those of JSON.
        separator: What stands between two arguments.
        nested: Whether the parts of objects and lists are written in the same way.
    """

    prefix: str
    suffix: str
    value_suffix: str
    close: str
    delimiter: str
    separator: str
    nested: bool = False


def literal(text: str) -> str:
    """Return a text in GBNF."""
    for character, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escape)
    return f'"{text}"'


class CallSchemas:
    """The rules of the values in an answer: those of arguments, and of an answer in JSON.

    Args:
        tools: The tools that may be called.
        answer: What is written instead of a call.
    """

    def __init__(self, tools: Sequence[Tool], answer: ResponseFormat | None = None) -> None:
        self.tools = tools
        self._answer = answer
        self._rules: Rules = {}
        self._n_values = 0

    def arguments(self, index: int) -> str:
        """Return the rule of a tool's arguments, one JSON object."""
        return self._add(schema_rules(self.tools[index].convert(index), self._prefix()))

    def answer(self) -> str:
        """Return the rule of the answer instead of a call."""
        assert self._answer is not None
        return self._add(schema_rules(self._answer.conversion, self._prefix()))

    def complete(self, grammar: str) -> str:
        """Return a grammar with the rules that it refers to."""
        rules = [f"{name} ::= {body}" for name, body in self._rules.items()]
        grammar = re.sub(r"^(\S+) ::= *$", r'\1 ::= ""', grammar, flags=re.MULTILINE)
        return re.sub(r"\bspace(?: space)+\b", "space", "\n".join([grammar.rstrip("\n"), *rules]) + "\n")

    def _prefix(self) -> str:
        self._n_values += 1
        return f"value-{self._n_values}-"

    def _add(self, found: tuple[str, Rules]) -> str:
        name, rules = found
        self._rules |= rules
        return name

    def rule(self, body: str) -> str:
        """Add a rule, and return its name."""
        return self._add((name := f"{self._prefix()}rule", {name: body}))

    # -------------------- arguments one by one

    def tagged(self, index: int, form: ArgumentForm) -> str:
        """Return the rule of a tool's arguments, written one by one."""
        parameters = self.tools[index].parameters
        members = _Members(self, parameters, form)
        return members.rule(parameters)

    def plain(self, schema: Any, root: Mapping[str, Any], form: ArgumentForm) -> tuple[str, str]:
        """Return the grammars of the strings that are valid, written as they are, and of other values; maybe empty."""
        strings: dict[str, None] = {}
        others: dict[str, None] = {}
        self._collect(schema, root, form, strings, others, 0)
        if _TEXT in strings:
            strings, others = {_TEXT: None}, {key: None for key in others if form.suffix != form.value_suffix}
        return " | ".join(strings), " | ".join(others)

    def _collect(
        self,
        schema: Any,
        root: Mapping[str, Any],
        form: ArgumentForm,
        strings: dict[str, None],
        others: dict[str, None],
        depth: int,
    ) -> None:
        schema = _resolved(schema, root)
        types = value_types(schema, root)
        options = next((schema[key] for key in _ALTERNATIVES if isinstance(schema.get(key), (list, tuple))), None)
        if options and depth < 10:
            siblings = {key: value for key, value in schema.items() if key not in _ALTERNATIVES}
            for option in options:
                self._collect({**siblings, **_resolved(option, root)}, root, form, strings, others, depth + 1)
            return
        listed = schema.get("enum") if "const" not in schema else [schema["const"]]
        if isinstance(listed, (list, tuple)) and listed:
            for value in listed:
                kind = strings if isinstance(value, str) else others
                kind[literal(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))] = None
            return
        if types is None or "string" in types:
            strings[self._string(schema, root, form) if types is not None else _TEXT] = None
        rest = sorted((types or set()) - {"string"})
        if rest:
            others[self.json({**schema, "type": rest if len(rest) > 1 else rest[0]}, root)] = None

    def _string(self, schema: Mapping[str, Any], root: Mapping[str, Any], form: ArgumentForm) -> str:
        if not any(key in schema for key in _CONSTRAINTS):
            return _TEXT
        lengths = [schema[key] for key in ("minLength", "maxLength") if isinstance(schema.get(key), (int, float))]
        if max(lengths, default=0) > _LONGEST:
            schema = {key: value for key, value in schema.items() if key not in ("minLength", "maxLength")}
            return self._string(schema, root, form)
        name, rules = schema_rules(_document({**schema, "type": "string"}, root), self._prefix())
        found = plain_rules(name, rules, form.delimiter, self._prefix())
        return _TEXT if found is None else self._add(found)

    def json(self, schema: Any, root: Mapping[str, Any]) -> str:
        """Return the rule of the values of a schema, written as JSON."""
        return self._add(schema_rules(_document(schema, root), self._prefix()))


class _Members:
    """The grammar of the members of one object, each written on its own."""

    def __init__(self, schemas: CallSchemas, root: Mapping[str, Any], form: ArgumentForm) -> None:
        self._schemas = schemas
        self._root = root
        self._form = form

    def rule(self, schema: Any) -> str:
        """Return the rule of all members of an object."""
        known = properties(schema, self._root)
        if not known:
            return self._any(schema)
        must = required(schema, self._root)
        members = {name: self.member(literal(name), name, value) for name, value in known.items()}
        needed = {name for name in members if name in must}
        if len(members) <= _PERMUTED:
            return self._permuted(members, needed)
        return self._in_order(members, needed)

    def _any(self, schema: Any) -> str:
        more = schema.get("additionalProperties", self._form.nested) if isinstance(schema, Mapping) else False
        if more is False:
            return '""'
        ends = re.escape((self._form.delimiter or "=")[:1]).replace("\\<", "<")
        one = self.member(f'[^{ends}<>"=\\n]+', None, more)
        return self._schemas.rule(f"( {one} ( {self._form.separator} {one} )* )?")

    def member(self, name: str, key: str | None, schema: Any) -> str:
        """Return the rule of one member.

        Args:
            name: The grammar of its name.
            key: Its name; ``None`` for any.
            schema: What its value is valid under.
        """
        form = self._form
        close = form.close.replace(NAME, '" [^<>]+ "' if key is None else literal(key)[1:-1])
        bodies: list[str] = []
        if not form.delimiter:
            value = self._schemas.json(schema, self._root)
            return self._schemas.rule(f"{form.prefix} {name} {form.value_suffix} {value} {close}")
        if form.nested and (inner := self._nested(schema)) is not None:
            return self._schemas.rule(f"{form.prefix} {name} {form.value_suffix} {inner} {close}")
        strings, others = self._schemas.plain(schema, self._root, form)
        if strings and others and form.suffix == form.value_suffix:
            bodies = [f"{form.prefix} {name} {form.suffix} ( {strings} | {others} ) {close}"]
        else:
            if strings:
                bodies.append(f"{form.prefix} {name} {form.suffix} ( {strings} ) {close}")
            if others:
                bodies.append(f"{form.prefix} {name} {form.value_suffix} ( {others} ) {close}")
        return self._schemas.rule(" | ".join(bodies))

    def _nested(self, schema: Any) -> str | None:
        """Return the grammar of an object or a list whose parts are written as members; ``None`` for other values."""
        types = value_types(schema, self._root)
        resolved = _resolved(schema, self._root)
        if types == {"object"}:
            return _Members(self._schemas, self._root, replace(self._form, separator="")).rule(resolved)
        if types == {"array"}:
            item = self.member(literal("item"), "item", items(resolved, self._root))
            return self._schemas.rule(f"{item}*")
        return None

    def _permuted(self, members: dict[str, str], needed: set[str]) -> str:
        """Return the rule of members in any order."""
        names = list(members)
        rules: dict[int, str] = {}
        separator = self._form.separator

        def rest(left: int) -> str:
            if left not in rules:
                is_first = left == (1 << len(names)) - 1
                before = "" if is_first and separator != "space" else separator
                options = [
                    f"{before} {members[name]} {rest(left & ~(1 << i))}"
                    for i, name in enumerate(names)
                    if left & 1 << i
                ]
                if not any(left & 1 << i and name in needed for i, name in enumerate(names)):
                    options.append('""')
                rules[left] = self._schemas.rule(" | ".join(options))
            return rules[left]

        return rest((1 << len(names)) - 1)

    def _in_order(self, members: dict[str, str], needed: set[str]) -> str:
        """Return the rule of members in the order of the schema."""
        separator = self._form.separator
        after = before = '""'
        for name, member in reversed(members.items()):
            first = f"{separator} {member}" if separator == "space" else member
            options = [f"{first} {after}"] + ([before] if name not in needed else [])
            later = [f"{separator} {member} {after}"] + ([after] if name not in needed else [])
            before, after = self._schemas.rule(" | ".join(options)), self._schemas.rule(" | ".join(later))
        return before


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(10):
        if not isinstance(schema, Mapping):
            return {}
        if "$ref" not in schema:
            return schema
        target = resolve(schema["$ref"], root)
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **siblings} if isinstance(target, Mapping) else siblings
    return {}


def _document(schema: Any, root: Mapping[str, Any]) -> Any:
    """Return a schema together with what it may refer to."""
    if not isinstance(schema, Mapping):
        return schema
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema}
