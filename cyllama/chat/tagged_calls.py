"""Arguments of calls that are written one by one, each with its name: in tags, or as Python's keyword arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from .arguments import Decode, nested, properties, spell
from .call_schemas import NAME, ArgumentForm, CallSchemas, literal
from .peg import Node, Peg
from .tools import Tool

_VALUES = ("tool-arg-value", "tool-arg-string-value")
_TRANSPARENT = ("rule", "atomic", "gbnf", "ac", "schema", "tag")

#: A part of a text: itself, or a node that reads it.
Part = str | int


@dataclass(frozen=True)
class TaggedArguments:
    """How a format writes arguments one by one, found in the parser of a probe tool.

    Attributes:
        choice: The node that reads one argument.
        texts: The node that reads the probe's argument of type string.
        values: The node that reads its other argument.
        name: The name of the former.
        value_name: The name of the latter.
        raw: Whether strings are written as they are, not as JSON strings.
        nested: Whether the name of an argument closes it too, and objects and lists are written in the same way.
    """

    choice: int
    texts: int
    values: int
    name: str
    value_name: str
    raw: bool
    nested: bool

    @classmethod
    def find(cls, peg: Peg, tool: int, text_name: str, value_name: str) -> TaggedArguments | None:
        """Return how arguments are written, or ``None`` where they are one JSON object."""
        choice = next((i for i in peg.below(tool) if _chooses_argument(peg, i)), None)
        if choice is None:
            return None
        texts, values = (
            next(i for i in peg.nodes[choice]["children"] if peg.find(i, "literal", literal=name) is not None)
            for name in (text_name, value_name)
        )
        raw = peg.has_tag(texts, "tool-arg-string-value")
        nested = any(text_name in text for i in peg.below(texts) for text in peg.nodes[i].get("delimiters", ()))
        return cls(choice, texts, values, text_name, value_name, raw, nested)

    def region(self, peg: Peg, tool: int) -> int:
        """Return the node that reads all arguments."""
        inside = list(peg.below(tool))
        region = self.choice
        while True:
            above = [i for i in inside if region in peg.children(i) and self._holds_arguments(peg, i)]
            if not above:
                return region
            region = min(above, key=lambda i: len(list(peg.below(i))))

    def _holds_arguments(self, peg: Peg, number: int) -> bool:
        node = peg.nodes[number]
        if node["type"] != "sequence":
            return node["type"] == "repetition"
        others = (child for child in node["children"] if self.choice not in peg.below(child))
        return all(
            peg.nodes[child]["type"] in ("space", "epsilon") or peg.nodes[child].get("literal") == ","
            for child in others
        )

    # -------------------- reading

    def reading(self, peg: Peg, tool: Tool, region: int) -> dict[int, int]:
        """Return replacements for nodes, so that arguments are read in any order, unknown ones too."""
        names = [name for name in properties(tool.parameters, tool.parameters) if name]
        if self.nested:
            known = [self._named(peg, self.texts, name) for name in names]
            return {self.choice: peg.choice(known or [peg.nodes[self.choice]["children"][0]])}
        if not self.raw:
            ones = [
                self._with_name(peg, self.values, name) for name in (*map(peg.literal, names), _any_name(peg, "=,()"))
            ]
            one = peg.choice(ones)
            several = peg.sequence([peg.literal(","), peg.add("space"), one])
            more = peg.add("repetition", child=several, min_count=0, max_count=-1)
            return {region: peg.add("repetition", child=peg.sequence([one, more]), min_count=0, max_count=1)}
        ones = list[int]()
        suffixes = [self._parts(peg, argument)[1] for argument in (self.texts, self.values)]
        for argument, suffix in zip((self.texts, self.values), suffixes, strict=True):
            if not ones or suffix != suffixes[0]:  # it says which values are strings
                known = [*map(peg.literal, names), _any_name(peg, _first_text(suffix)[0])]
                ones += [self._with_name(peg, argument, name) for name in known]
        return {self.choice: peg.choice(ones)}

    def _with_name(self, peg: Peg, argument: int, name: int) -> int:
        """Return a copy of an argument of the probe's, with a value that is a text, for other names."""
        below = set(peg.below(argument))
        tag = next(i for i in below if peg.nodes[i].get("tag") == "tool-arg-name")
        replaced = {peg.nodes[tag]["child"]: name}
        value = next(i for i in below if peg.nodes[i].get("tag") in _VALUES)
        if self.raw and peg.nodes[value]["tag"] == "tool-arg-value":
            replaced[value] = next(i for i in peg.below(self.texts) if peg.nodes[i].get("tag") in _VALUES)
        changed = set().union(*(peg.above(number) & below for number in replaced))
        return peg.copy(argument, changed, lambda i, node: replaced.get(i, node))

    def _named(self, peg: Peg, argument: int, name: str) -> int:
        """Return a copy of an argument of the probe with another name, where the name closes it too."""
        below = set(peg.below(argument))
        texts = ("literal", "delimiters")
        changed = set[int]()
        for i in below:
            if any(self.name in str(peg.nodes[i].get(key, "")) for key in texts):
                changed |= peg.above(i) & below

        def change(_: int, node: Node) -> Node:
            if "literal" in node:
                node["literal"] = node["literal"].replace(self.name, name)
            if "delimiters" in node:
                node["delimiters"] = [text.replace(self.name, name) for text in node["delimiters"]]
            return node

        return peg.copy(argument, changed, change)

    def decoder(self, peg: Peg) -> Decode | None:
        """Return the parser of objects and lists that are not written as JSON."""
        if not self.nested:
            return None
        mark = _first_text(self._parts(peg, self.texts)[0])
        return lambda text, schema, root: nested(text, schema, root, mark)

    # -------------------- writing

    def writing(self, peg: Peg, schemas: CallSchemas, index: int, region: int) -> int:
        """Return a node in whose grammar the arguments of a tool fit their schema."""
        helpers: dict[int, str] = {}

        def grammar(parts: list[Part]) -> str:
            names = [
                literal(part) if isinstance(part, str) else helpers.setdefault(part, f"mark-{part}") for part in parts
            ]
            return " ".join(names) or '""'

        prefix, suffix, _ = self._parts(peg, self.texts)
        _, value_suffix, close = self._parts(peg, self.values)
        delimiter = self._delimiter(peg)
        form = ArgumentForm(
            grammar(prefix),
            grammar(suffix),
            grammar(value_suffix),
            grammar([part.replace(self.value_name, NAME) if isinstance(part, str) else part for part in close]),
            delimiter,
            self._separator(peg, region),
            self.nested,
        )
        body = schemas.tagged(index, form)
        children = [peg.rule(name, part) for part, name in helpers.items()]
        if delimiter:
            children.append(peg.rule("text-value", peg.until(delimiter)))
        return peg.grammar(peg.sequence(children), body)

    def _delimiter(self, peg: Peg) -> str:
        """Return the text that ends a string."""
        if not self.raw:
            return ""
        found = [
            text
            for i in peg.below(self.texts)
            if peg.nodes[i]["type"] == "until"
            for text in peg.nodes[i]["delimiters"]
        ]
        return found[-1].split(self.name)[0] if self.nested else found[-1]

    def _separator(self, peg: Peg, region: int) -> str:
        kinds = [peg.nodes[i] for i in peg.below(region) if i not in peg.below(self.choice)]
        if any(node.get("literal") == "," for node in kinds):
            return '"," space'
        return "space" if any(node["type"] == "space" for node in kinds) else ""

    def text(self, peg: Peg, arguments: str) -> str:
        """Return arguments, JSON text of an object or what stands for it, as the format has them."""
        try:
            items = list(json.loads(arguments).items())
        except ValueError:
            items = [("<name of an argument>", arguments)]
        prefix, suffix, _ = self._parts(peg, self.texts)
        _, _, close = self._parts(peg, self.values)
        before, after, end = (
            "".join(part for part in parts if isinstance(part, str)) for parts in (prefix, suffix, close)
        )
        write = spell if self.raw else lambda value: json.dumps(value, ensure_ascii=False)
        return ("" if self.raw else ", ").join(f"{before}{name}{after}{write(value)}{end}" for name, value in items)

    # -------------------- the text of one argument

    def _parts(self, peg: Peg, argument: int) -> tuple[list[Part], list[Part], list[Part]]:
        """Return what an argument has before its name, between name and value, and after it."""
        parts: list[list[Part]] = [[]]
        for kind, part in _tokens(peg, argument):
            if kind == "part":
                parts[-1] += [part] if part != "" else []
            else:
                parts.append([])
        before, between, after = parts
        return before, between, after


def _first_text(parts: list[Part]) -> str:
    return next(part for part in parts if isinstance(part, str))


def _chooses_argument(peg: Peg, number: int) -> bool:
    node = peg.nodes[number]
    return node["type"] == "choice" and all(peg.has_tag(child, "tool-arg") for child in node["children"])


def _any_name(peg: Peg, ends: str) -> int:
    """Return a node that reads a name up to one of these characters."""
    ranges = [{"start": ord(character), "end": ord(character)} for character in f"{ends}\n"]
    pattern = "[^" + "".join(f"\\{character}" if character in "]\\^-[" else character for character in ends) + "\\n]"
    return peg.add("chars", pattern=pattern, ranges=ranges, negated=True, min_count=1, max_count=-1)


def _tokens(peg: Peg, number: int) -> Iterator[tuple[str, Part]]:
    """Yield the parts of an argument, its name and its value, in the order of the text."""
    node = peg.nodes[number]
    kind = node["type"]
    if node.get("tag") == "tool-arg-name":
        yield "name", number
    elif node.get("tag") in _VALUES:
        yield "value", number
    elif kind == "literal":
        yield "part", node["literal"]
    elif kind == "sequence":
        for child in node["children"]:
            yield from _tokens(peg, child)
    elif kind == "choice":  # the last is the plain one
        yield from _tokens(peg, node["children"][-1])
    elif kind in _TRANSPARENT:
        yield from _tokens(peg, node["child"])
    elif kind not in ("epsilon", "space", "and", "not"):
        yield "part", number
