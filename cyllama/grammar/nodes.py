"""What a schema allows, as a graph of nodes, and the rules of a grammar for it.

Rules are written after all nodes are known: alternatives that begin alike are then written as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import gbnf
from .gbnf import Rules
from .objects import Shape, fits_together, write_objects


@dataclass(frozen=True)
class Leaf:
    """A value without parts.

    Attributes:
        kind: Its type.
        body: Its GBNF.
    """

    kind: str
    body: str


@dataclass(frozen=True)
class Literals:
    """One of several values.

    Attributes:
        texts: The values as JSON.
        kinds: Their types.
    """

    texts: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True)
class Alias:
    """A definition.

    Attributes:
        target: Name of what it is.
    """

    target: str


@dataclass(frozen=True)
class Union:
    """Alternatives.

    Attributes:
        options: Their names.
    """

    options: tuple[str, ...]


@dataclass(frozen=True)
class Array:
    """An array.

    Attributes:
        first: Names of the items that it begins with.
        rest: Name of the items after these; ``None`` without such items.
        least: How many items there are at least.
        most: How many at most; ``None`` for any number.
    """

    first: tuple[str, ...] = ()
    rest: str | None = None
    least: int = 0
    most: int | None = None


Node = Leaf | Literals | Alias | Union | Array | Shape

#: Rules that every value of a type fits.
ANY_OF = {
    "object": gbnf.OBJECT,
    "array": gbnf.ARRAY,
    "string": gbnf.STRING,
    "integer": gbnf.INTEGER,
    "number": gbnf.NUMBER,
    "boolean": gbnf.BOOLEAN,
    "null": gbnf.NULL,
}
_KIND_OF = {rule: kind for kind, rule in ANY_OF.items()}


class Graph:
    """The nodes of one schema, by the names of their rules. Equal nodes have one name.

    Args:
        rules: Where the rules are added.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.nodes: dict[str, Node] = {}
        self._names: dict[Node, str] = {}
        self._written: set[str] = set()

    def add(self, node: Node) -> str:
        """Return the name of a node."""
        if node not in self._names:
            self._names[node] = name = self.rules.reserve()
            self.nodes[name] = node
        return self._names[node]

    def define(self, name: str, target: str) -> None:
        """Set what a definition is. Its name may have been referred to before."""
        self.nodes[name] = Alias(target)

    # -------------------- questions

    def resolved(self, name: str) -> str:
        """Return the name of a node that is not an alias; of a definition that is only itself, its own."""
        seen = {name}
        while isinstance(node := self.nodes.get(name), Alias) and node.target not in seen:
            name = node.target
            seen.add(name)
        return name

    def options(self, name: str) -> list[str]:
        """Return the names of alternatives, and of theirs; of another node, its own."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            option = self.resolved(waiting.pop())
            if option in seen:
                continue
            seen.add(option)
            node = self.nodes.get(option)
            if isinstance(node, Union):
                waiting += reversed(node.options)
            elif not isinstance(node, Alias):
                found[option] = None
        return list(found)

    def kinds(self, name: str) -> set[str]:
        """Return the types of the values of a node."""
        found: set[str] = set()
        for option in self.options(name):
            node = self.nodes.get(option)
            if isinstance(node, Literals):
                found |= node.kinds
            elif isinstance(node, Leaf):
                found.add(node.kind)
            elif node is None:
                found |= {_KIND_OF[option]} if option in _KIND_OF else set(ANY_OF)
            else:
                found.add("object" if isinstance(node, Shape) else "array")
        return found

    def can_end(self, root: str) -> bool:
        """Whether there is a finite value of a node."""
        finite: set[str] = set()
        while True:
            found = {name for name, node in self.nodes.items() if name not in finite and self._ends(node, finite)}
            if not found:
                return root in finite or root not in self.nodes
            finite |= found

    def _ends(self, node: Node, finite: set[str]) -> bool:
        def ends(name: str) -> bool:
            return name in finite or name not in self.nodes

        if isinstance(node, Alias):
            return ends(node.target)
        if isinstance(node, Union):
            return any(map(ends, node.options))
        if isinstance(node, Shape):
            return all(ends(rule) for _, required, rule in node.properties if required)
        if isinstance(node, Array):
            needed = [*node.first, *([node.rest] if node.rest and node.least > len(node.first) else [])]
            return all(map(ends, needed[: node.least]))
        return True

    # -------------------- rules

    def write(self, root: str) -> None:
        """Add the rules of a node and of what it refers to."""
        waiting = [root]
        while waiting:
            name = waiting.pop()
            if name in self._written or name not in self.nodes:
                continue
            self._written.add(name)
            options = self.options(name)
            self.rules.define(name, self._alternatives(options) if options != [name] else self._body(name))
            for option in options:
                waiting += [self.resolved(part) for part in self._parts(option)]
                if options != [name] and option not in _KIND_OF:
                    waiting.append(option)

    def _parts(self, name: str) -> Iterator[str]:
        node = self.nodes.get(name)
        if isinstance(node, Shape):
            yield from (rule for _, _, rule in node.properties)
            yield from (part for extra in node.extras for part in extra)
        elif isinstance(node, Array):
            yield from (*node.first, *([node.rest] if node.rest else []))

    def _alternatives(self, options: list[str]) -> str:
        """Return the GBNF of several nodes, each once."""
        if gbnf.VALUE in options:
            return self.rules.shared(gbnf.VALUE)
        whole = {_KIND_OF[option] for option in options if option in _KIND_OF}
        whole |= {"integer"} if "number" in whole else set()
        texts: dict[str, None] = {}
        shapes: dict[str, Shape] = {}
        bodies: list[str] = []
        for option in options:
            node = self.nodes.get(option)
            if option in _KIND_OF:
                if not (option == gbnf.INTEGER and "number" in whole):
                    bodies.append(self.rules.shared(option))
            elif isinstance(node, Literals):
                if not node.kinds <= whole:
                    texts.update(dict.fromkeys(node.texts))
            elif isinstance(node, Shape):
                if "object" not in whole:
                    shapes[option] = self._with_resolved(node)
            elif not (isinstance(node, Leaf) and node.kind in whole):
                bodies.append(option)
        if texts:
            bodies.append(f"( {gbnf.choice(texts)} )" if bodies or shapes else gbnf.choice(texts))
        if len(shapes) > 1 and fits_together(list(shapes.values())):
            bodies.append(self.rules.add(write_objects(list(shapes.values()), self.rules)))
        else:
            bodies += shapes
        return " | ".join(bodies)

    def _with_resolved(self, shape: Shape) -> Shape:
        properties = tuple((key, required, self.resolved(rule)) for key, required, rule in shape.properties)
        extras = tuple((self.resolved(key), self.resolved(rule)) for key, rule in shape.extras)
        return Shape(properties, extras, shape.least, shape.most)

    def _body(self, name: str) -> str:
        node = self.nodes[name]
        if isinstance(node, Leaf):
            return node.body
        if isinstance(node, Literals):
            return gbnf.choice(node.texts)
        if isinstance(node, Shape):
            return write_objects([self._with_resolved(node)], self.rules)
        assert isinstance(node, Array)
        return self._array(node)

    def _array(self, array: Array) -> str:
        """Return the GBNF of an array: of each length from the least to the most."""
        rules = self.rules
        space = rules.shared(gbnf.SPACE)
        if not array.first and array.rest is None:
            return '"[]"'
        most = array.most
        if array.rest is not None:
            rest = self.resolved(array.rest)
            item = rules.add(f'"," {space} {rest}')
            fewest = max(0, array.least - len(array.first))
            if array.first:
                tail = rules.repeat(item, fewest, None if most is None else max(0, most - len(array.first)))
            else:
                more = rules.repeat(item, max(0, fewest - 1), None if most is None else max(0, most - 1))
                tail = f"{rest} {more}"
                if not array.least:
                    tail = f"( {tail} )?"
        else:
            tail = '""'
        for i in reversed(range(len(array.first))):
            comma = f'"," {space} ' if i else ""
            tail = f"{comma}{self.resolved(array.first[i])} {tail}"
            if array.least <= i:
                tail = f"( {rules.add(tail)} )?"
        return f'"[" {space} {tail} {space} "]"'
