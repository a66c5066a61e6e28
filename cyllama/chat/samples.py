"""A text that a parser of calls reads."""

from __future__ import annotations

from .peg import Peg


def sample(peg: Peg, top: int, tool: int, calls: list[int]) -> str:
    """Return the simplest text of calls.

    Args:
        peg: The parser.
        top: The node of all calls.
        tool: The node that stands for one call.
        calls: The nodes of the calls, in their order.
    """
    return _Sample(peg, tool, calls).text(top)


class _Sample:
    def __init__(self, peg: Peg, tool: int, calls: list[int]) -> None:
        self._peg = peg
        self._tool = tool
        self._path = peg.above(tool)
        self._waiting = list(reversed(calls))

    def text(self, number: int) -> str:
        if number == self._tool:
            return self.text(self._waiting.pop()) if self._waiting else ""
        node = self._peg.nodes[number]
        kind = node["type"]
        if kind == "literal":
            return node["literal"]
        if kind == "sequence":
            return "".join(self.text(child) for child in node["children"])
        if kind == "choice":
            calling = [child for child in node["children"] if child in self._path]
            return self.text((calling or node["children"])[0])
        if kind == "repetition":
            return self._repeated(number)
        if kind in ("rule", "tag", "atomic", "ac", "gbnf", "schema"):
            return self.text(node["child"])
        return ""

    def _repeated(self, number: int) -> str:
        node = self._peg.nodes[number]
        if number not in self._path:
            return "".join(self.text(node["child"]) for _ in range(node["min_count"]))
        texts: list[str] = []
        while self._waiting and (node["max_count"] < 0 or len(texts) < node["max_count"]):
            texts.append(self.text(node["child"]))
        return "".join(texts)
