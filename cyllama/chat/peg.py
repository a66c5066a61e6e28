"""Parsers of answers (PEG), as llama.cpp saves them: trees that can be rewritten, from which it makes grammars too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Node = dict[str, Any]


class Peg:
    """One parser: nodes that refer to each other by their numbers.

    Args:
        text: JSON text of llama.cpp's.
    """

    def __init__(self, text: str) -> None:
        data = json.loads(text)
        self.nodes: list[Node] = data["parsers"]
        self.root: int = data["root"]

    def dumps(self) -> str:
        """Return the parser as JSON text, without nodes that nothing refers to."""
        numbers = {old: new for new, old in enumerate(self.below(self.root))}
        nodes: list[Node] = []
        for old in numbers:
            node = dict(self.nodes[old])
            if "children" in node:
                node["children"] = [numbers[child] for child in node["children"]]
            if "child" in node:
                node["child"] = numbers[node["child"]]
            nodes.append(node)
        rules = {node["name"]: i for i, node in enumerate(nodes) if node["type"] == "rule"}
        return json.dumps({"parsers": nodes, "rules": rules, "root": 0}, ensure_ascii=False)

    # -------------------- nodes

    def add(self, kind: str, **fields: Any) -> int:
        """Add a node, and return its number."""
        self.nodes.append({"type": kind, **fields})
        return len(self.nodes) - 1

    def literal(self, text: str) -> int:
        """Add a node that reads a text."""
        return self.add("literal", literal=text)

    def sequence(self, children: Iterable[int]) -> int:
        """Add a node that reads one after the other."""
        return self.add("sequence", children=list(children))

    def choice(self, children: Iterable[int]) -> int:
        """Add a node that reads the first that fits."""
        return self.add("choice", children=list(children))

    def tag(self, name: str, child: int) -> int:
        """Add a node that marks what another one reads."""
        return self.add("tag", tag=name, child=child)

    def rule(self, name: str, child: int) -> int:
        """Add a rule of the grammar."""
        return self.add("rule", name=name, child=child, trigger=False)

    def until(self, *delimiters: str) -> int:
        """Add a node that reads up to one of the delimiters, or everything."""
        return self.add("until", delimiters=list(delimiters))

    def grammar(self, child: int, text: str) -> int:
        """Add a node that reads like another one, and has this grammar."""
        return self.add("gbnf", child=child, grammar=text)

    def nothing(self) -> int:
        """Add a node that reads nothing."""
        return self.add("epsilon")

    # -------------------- trees

    def children(self, number: int) -> list[int]:
        """Return the nodes that a node consists of."""
        node = self.nodes[number]
        return [*node.get("children", ()), *([node["child"]] if "child" in node else ())]

    def below(self, number: int) -> Iterator[int]:
        """Yield a node and all that it consists of, in the order of the text, each once."""
        seen: set[int] = set()
        waiting = [number]
        while waiting:
            found = waiting.pop()
            if found not in seen:
                seen.add(found)
                yield found
                waiting += reversed(self.children(found))

    def find(self, number: int, kind: str, **fields: Any) -> int | None:
        """Return the first node of a kind below another one, or ``None``."""
        for found in self.below(number):
            node = self.nodes[found]
            if node["type"] == kind and all(node[name] == value for name, value in fields.items()):
                return found
        return None

    def has_tag(self, number: int, name: str) -> bool:
        """Return whether a node contains what is marked so."""
        return self.find(number, "tag", tag=name) is not None

    def above(self, target: int) -> set[int]:
        """Return the nodes that contain another one, and itself."""
        parents: dict[int, list[int]] = {}
        for i in range(len(self.nodes)):
            for child in self.children(i):
                parents.setdefault(child, []).append(i)
        found = {target}
        waiting = [target]
        while waiting:
            for parent in parents.get(waiting.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found

    def copy(self, number: int, changed: set[int], change: Callable[[int, Node], Node | int]) -> int:
        """Copy a tree, and return its number.

        Args:
            number: What is copied.
            changed: The nodes that differ, and those that contain them; all other nodes are shared.
            change: Returns the changed copy of a node, or the number of a node that replaces it.
        """
        copies: dict[int, int] = {}

        def visit(old: int) -> int:
            if old not in changed:
                return old
            if old not in copies:
                node = change(old, dict(self.nodes[old]))
                if isinstance(node, int):
                    copies[old] = node
                else:
                    if "children" in node:
                        node["children"] = [visit(child) for child in node["children"]]
                    if "child" in node:
                        node["child"] = visit(node["child"])
                    self.nodes.append(node)
                    copies[old] = len(self.nodes) - 1
            return copies[old]

        return visit(number)
