"""Tool calls as a template's own format has them: how answers are read, and the grammar that they are written by.

llama.cpp finds a template's format for any tools, and makes a parser of it. It is asked once per template, for one
probe tool. In that parser the probe is replaced by the tools of the request. So their names, parameters and
descriptions cannot change the format, and each tool has rules of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..llama.llama_cpp import LlamaChatParams, parser_grammar
from .arguments import typed
from .call_schemas import CallSchemas
from .parser import Read
from .peg import Node, Peg
from .samples import sample
from .tagged_calls import TaggedArguments
from .tools import Tool

_TOOL, _TEXT, _VALUE = "zqtoolqz", "zqtextqz", "zqvalueqz"

#: The tool that llama.cpp is asked about.
PROBE = Tool(
    _TOOL,
    "",
    {
        "type": "object",
        "properties": {_TEXT: {"type": "string"}, _VALUE: {"type": "integer", "const": 7205759}},
        "additionalProperties": False,
    },
)
_RECIPIENT = ">>>"  # Functionary's mark of the receiver of a message
_ID = "[a-zA-Z0-9_.:-]{1,64}"
_NINE = "[a-zA-Z0-9]{9}"
_DEMANDS_NINE = re.compile(r"length\s*(?:!=|==|is)\s*9\b|\blength\b.{0,40}\b9\b")


@dataclass(frozen=True)
class Writing:
    """How calls are written.

    Attributes:
        grammar: The grammar, without the rules of values that it refers to.
        triggers: Where a lazy grammar begins: pairs of a kind and a text.
    """

    grammar: str
    triggers: tuple[tuple[str, str], ...]


class NativeFormat:
    """The format of calls that llama.cpp found in a template.

    Args:
        params: What llama.cpp returned for :data:`PROBE`, parallel calls and the choice "auto".
        source: The template.
        two_calls: Two calls as the template writes them, or an empty text if it cannot.

    Raises:
        ValueError: It found no format.
    """

    def __init__(self, params: LlamaChatParams, source: str, two_calls: str = "") -> None:
        self.params = params
        peg = Peg(params.parser)
        self._marked = params.generation_prompt.endswith(_RECIPIENT)
        _repair(peg, self._marked, two_calls)
        self._text = peg.dumps()
        self._id = _NINE if _DEMANDS_NINE.search(source) else _ID
        peg = Peg(self._text)
        self._tool = _tool_rule(peg)
        self._arguments = TaggedArguments.find(peg, self._tool, _TEXT, _VALUE)
        if self._arguments is None and peg.find(self._tool, "tag", tag="tool-args") is None:
            raise ValueError("the format of the arguments is not known")

    # -------------------- reading

    def reader(self, tools: Sequence[Tool]) -> Read:
        """Return what reads answers with calls of these tools."""
        peg = Peg(self._text)
        arguments = self._arguments
        choices: list[int] = []
        for tool in tools:
            replaced: dict[int, int] = {}
            if arguments is not None:
                replaced = arguments.reading(peg, tool, arguments.region(peg, self._tool))
            choices.append(self._copy_tool(peg, tool.name, f"call-{len(choices)}", replaced))
        _offer(peg, self._tool, choices)
        _expand_delimiters(peg, [tool.name for tool in tools])
        _let_speak(peg, self._tool)
        rest = peg.sequence([peg.add("space"), peg.tag("content", peg.until())])
        peg.root = peg.sequence([_without_end(peg, peg.root), rest])
        params = self.params.with_parser(peg.dumps())
        if arguments is None or not arguments.raw:
            return params.parse
        return typed(params.parse, list(tools), arguments.decoder(peg))

    def _copy_tool(
        self, peg: Peg, name: str, rule: str, replaced: dict[int, int], required: frozenset[int] = frozenset()
    ) -> int:
        """Return a copy of the probe's rule for a tool of another name."""
        changed: set[int] = set()
        below = set(peg.below(self._tool))
        for number in below:
            node = peg.nodes[number]
            if number in replaced or number in required or _TOOL in node.get("literal", ""):
                changed |= peg.above(number) & below

        def change(number: int, node: Node) -> Node | int:
            if number in replaced:
                return replaced[number]
            if number in required:
                node["min_count"] = 1
            if node["type"] == "literal":
                node["literal"] = node["literal"].replace(_TOOL, name)
            elif node["type"] == "rule":
                node["name"] = rule if number == self._tool else f"{rule}-part-{number}"
            return node

        return peg.copy(self._tool, changed, change)

    # -------------------- writing

    def writing(self, schemas: CallSchemas, *, lazy: bool, parallel: bool, answer: str | None = None) -> Writing:
        """Return the grammar by which calls are written.

        Args:
            schemas: The grammars of the tools' arguments.
            lazy: Whether the grammar begins at the first call.
            parallel: Whether one answer may have several calls.
            answer: What may be written instead of calls, a rule; ``None`` for nothing else.
        """
        peg = Peg(self._text)
        choices: list[int] = []
        for i, tool in enumerate(schemas.tools):
            replaced = self._ids(peg)
            if self._arguments is not None:
                region = self._arguments.region(peg, self._tool)
                replaced[region] = self._arguments.writing(peg, schemas, i, region)
            elif (schema := peg.find(self._tool, "schema")) is not None:
                replaced[schema] = peg.grammar(peg.nothing(), schemas.arguments(i))
            choices.append(self._copy_tool(peg, tool.name, f"call-{i}", replaced, self._optional_ids(peg)))
        _offer(peg, self._tool, choices)
        _unwrap_text(peg, self.params.generation_prompt)
        _Calls(peg, self._tool, parallel, answer).run()
        names = [tool.name for tool in schemas.tools]
        _expand_delimiters(peg, names)
        triggers = tuple(
            ("pattern", f"(?:^|{_RECIPIENT})({re.escape(name)}\\n)") for name in names if self._marked
        ) or tuple(
            (kind, value.replace(_TOOL, name))
            for kind, value in self.params.grammar_triggers
            for name in (names if _TOOL in value else names[:1])
        )
        return Writing(parser_grammar(peg.dumps(), lazy), triggers)

    def _ids(self, peg: Peg) -> dict[int, int]:
        """Return replacements for the nodes that read an id, with a grammar that limits its length."""
        replaced: dict[int, int] = {}
        for number in list(peg.below(self._tool)):
            node = peg.nodes[number]
            if node["type"] == "tag" and node["tag"] == "tool-id":
                child = node["child"]
                if peg.nodes[child]["type"] in ("string", "until"):
                    replaced[child] = peg.grammar(child, self._id)
        return replaced

    def _optional_ids(self, peg: Peg) -> frozenset[int]:
        """Return the nodes that let an id be left out, which templates never do."""
        optional = (
            i
            for i in peg.below(self._tool)
            if peg.nodes[i]["type"] == "repetition" and peg.has_tag(i, "tool-id") and not peg.has_tag(i, "tool-name")
        )
        return frozenset(optional)

    def example(self, calls: Sequence[tuple[str, str]]) -> str:
        """Return calls as text of the format, for a template that cannot write them itself.

        Args:
            calls: Names and arguments as JSON, or what stands for them.
        """
        peg = Peg(self._text)
        choices: list[int] = []
        for name, arguments in calls:
            replaced: dict[int, int] = {}
            if self._arguments is not None:
                text = self._arguments.text(peg, arguments)
                replaced[self._arguments.region(peg, self._tool)] = peg.literal(text)
            else:
                tagged = peg.find(self._tool, "tag", tag="tool-args")
                assert tagged is not None
                replaced[tagged] = peg.literal(arguments)
            choices.append(self._copy_tool(peg, name, "call", replaced))
        top = next(i for i in peg.below(peg.root) if peg.nodes[i].get("trigger"))
        return sample(peg, top, self._tool, choices)


def _repair(peg: Peg, marked: bool, two_calls: str) -> None:
    """Correct llama.cpp's parsers where they refuse, or read wrongly, what their own templates write."""
    tool = _tool_rule(peg)
    for number in list(peg.below(tool)):
        node = peg.nodes[number]
        if node["type"] == "and" and peg.nodes[node["child"]]["type"] == "literal":  # there may be white space
            node["child"] = peg.sequence([peg.add("space"), node["child"]])
    path = peg.above(tool)
    for number in path:
        node = peg.nodes[number]
        if node["type"] == "sequence":
            _let_reasoning_out(peg, node)
            _part_calls_as_written(peg, node, two_calls)
        elif node["type"] == "repetition" and marked and _is_call(peg, node["child"]):
            # There is a mark before each call, of which the first is in the prompt.
            next_call = peg.sequence([peg.literal(_RECIPIENT), node["child"]])
            more = peg.add("repetition", child=next_call, min_count=0, max_count=-1)
            peg.nodes[number] = {"type": "sequence", "children": [node["child"], more]}


def _unwrap_text(peg: Peg, generation_prompt: str) -> None:
    """Let a text begin without the mark at the end of the prompt, and end without the mark at the end of an answer."""
    for number in list(peg.below(peg.root)):
        node = peg.nodes[number]
        children = node.get("children", ())
        if len(children) < 2 or peg.nodes[children[1]].get("tag") != "content":
            continue
        mark = peg.nodes[children[0]].get("literal")
        if mark and mark != generation_prompt and generation_prompt.endswith(mark):
            ends = [peg.add("repetition", child=end, min_count=0, max_count=1) for end in children[2:]]
            node["children"] = [peg.nothing(), children[1], *ends]


def _is_call(peg: Peg, number: int) -> bool:
    node = peg.nodes[number]
    while node["type"] == "choice" and len(node["children"]) == 1:
        node = peg.nodes[node["children"][0]]
    return node["type"] == "rule" and node["name"].endswith(_TOOL)


def _part_calls_as_written(peg: Peg, node: Node, two_calls: str) -> None:
    """Separate calls as the template does, where llama.cpp assumes a comma."""
    first, *rest = node["children"]
    between = two_calls.split(_TOOL)[1:-1]
    assumed = peg.nodes[first].get("literal") == ", " and len(rest) == 1 and _is_call(peg, rest[0])
    if assumed and between and "," not in between[0]:
        peg.nodes[first] = {"type": "space"}


def _let_reasoning_out(peg: Peg, node: Node) -> None:
    """Let a model answer without reasoning where the parser requires reasoning."""
    children: list[int] = node["children"]
    for i, child in enumerate(children):
        if peg.nodes[child].get("tag") != "reasoning":
            continue
        marks = [n for n, other in enumerate(children) if peg.nodes[other]["type"] == "literal"]
        before, after = [n for n in marks if n < i], [n for n in marks if n > i]
        if len(before) > 1 and after:  # the first one is the generation prompt
            part = peg.sequence(children[before[-1] : after[0] + 1])
            optional = peg.add("repetition", child=part, min_count=0, max_count=1)
            node["children"] = [*children[: before[-1]], optional, *children[after[0] + 1 :]]
        return


def _tool_rule(peg: Peg) -> int:
    for number, node in enumerate(peg.nodes):
        if node["type"] == "rule" and node["name"].endswith(_TOOL) and peg.has_tag(number, "tool-name"):
            return number
    raise ValueError("the parser knows no calls")


def _offer(peg: Peg, tool: int, choices: list[int]) -> None:
    """Replace the probe by several tools."""
    peg.nodes[tool] = {"type": "rule", "name": "call", "child": peg.choice(choices), "trigger": False}


def _expand_delimiters(peg: Peg, names: Sequence[str]) -> None:
    for node in peg.nodes:
        if node["type"] in ("until", "ac") and any(_TOOL in text for text in node["delimiters"]):
            node["delimiters"] = [
                text.replace(_TOOL, name)
                for text in node["delimiters"]
                for name in (names if _TOOL in text else names[:1])
            ]


def _without_end(peg: Peg, root: int) -> int:
    """Return a parser that lets text follow."""
    node = peg.nodes[root]
    if node["type"] == "end":
        return peg.nothing()
    if node["type"] == "sequence" and node["children"]:
        last = _without_end(peg, node["children"][-1])
        return peg.sequence([*node["children"][:-1], last])
    if node["type"] == "choice":
        return peg.choice(_without_end(peg, child) for child in node["children"])
    return root


def _let_speak(peg: Peg, tool: int) -> None:
    """Let an answer be text without calls, which some of llama.cpp's parsers refuse if there are tools."""
    path = peg.above(tool)
    for number in list(path):
        node = peg.nodes[number]
        if node["type"] != "sequence":
            continue
        for i, child in enumerate(node["children"]):
            if child in path and any(peg.has_tag(before, "content") for before in node["children"][:i]):
                node["children"][i] = peg.add("repetition", child=child, min_count=0, max_count=1)
                break


class _Calls:
    """Turns a parser of answers into one of calls: no other text, and one call, or several if they are allowed."""

    def __init__(self, peg: Peg, tool: int, parallel: bool, answer: str | None) -> None:
        self._peg = peg
        self._tool = tool
        self._path = peg.above(tool)
        self._parallel = parallel
        self._answer = answer
        self._done: set[int] = set()

    def run(self) -> None:
        self._require(self._peg.root)
        if self._answer is not None:  # the format has no place of its own for text
            top = next(i for i in self._peg.below(self._peg.root) if self._peg.nodes[i].get("trigger"))
            node = self._peg.nodes[top]
            calls = self._peg.rule("calls", node["child"])
            node["child"] = self._peg.choice([calls, self._peg.grammar(self._peg.nothing(), self._answer)])

    def _talks(self, number: int) -> bool:
        return self._peg.has_tag(number, "content")

    def _reasons(self, number: int) -> bool:
        return self._peg.has_tag(number, "reasoning")

    def _require(self, number: int) -> None:
        """Change a node that contains calls."""
        if number in self._done or number == self._tool:
            return
        self._done.add(number)
        node = self._peg.nodes[number]
        if node["type"] == "repetition":
            node["min_count"] = max(1, node["min_count"])
            if not self._parallel:
                node["max_count"] = 1
        if node["type"] == "choice":
            self._choose(node)
        elif node["type"] == "sequence":
            self._order(node)
        else:
            self._require(node["child"])

    def _choose(self, node: Node) -> None:
        """Keep the alternatives of calls."""
        calls = [child for child in node["children"] if child in self._path]
        if any(not self._talks(child) and not self._reasons(child) for child in calls):
            texts = sorted(filter(self._talks, node["children"]), key=self._path.__contains__)
            calls = [child for child in calls if not self._talks(child)]
        else:
            texts = [child for child in node["children"] if self._talks(child) and child not in self._path]
        node["children"] = [*calls, *self._answers(texts)]
        for child in calls:
            self._require(child)

    def _order(self, node: Node) -> None:
        """Leave out the text before calls, and all but the first call where only one is allowed."""
        children: list[int] = node["children"]
        first = next(i for i, child in enumerate(children) if child in self._path)
        kept: list[int] = []
        texts: list[int] = []
        for i, child in enumerate(children[:first]):
            if self._talks(child) and self._reasons(child):
                self._silence(child)
                kept.append(child)
            elif self._talks(child):
                around = [n for n in (i - 1, i, i + 1) if n == i or self._is_optional_mark(children[n])]
                texts.append(self._peg.sequence(children[n] for n in around))
            elif not self._is_any_text(child):
                kept.append(child)
        calls = children[first]
        self._require(calls)
        answers = self._answers(texts)
        kept.append(self._peg.choice([calls, *answers]) if answers else calls)
        kept += [child for child in children[first + 1 :] if self._parallel or child not in self._path]
        node["children"] = kept

    def _answers(self, texts: list[int]) -> list[int]:
        """Return the node of an answer instead of calls, in a list; the list is empty after the first place."""
        for text in texts:
            number = next((i for i in self._peg.below(text) if self._is_content(i)), None)
            if self._answer is None or number is None:
                continue
            while self._peg.nodes[text]["type"] == "repetition":
                text = self._peg.nodes[text]["child"]
            while text in self._path:  # with calls behind it
                text = next(child for child in self._peg.children(text) if number in self._peg.below(child))
            answer = self._peg.grammar(number, self._answer)
            self._answer = None
            below = set(self._peg.below(text))
            replaced = {number: answer}

            def change(i: int, node: Node, replaced: dict[int, int] = replaced) -> Node | int:
                return replaced.get(i, node)

            return [self._peg.copy(text, self._peg.above(number) & below, change)]
        return []

    def _is_optional_mark(self, number: int) -> bool:
        node = self._peg.nodes[number]
        return node["type"] == "repetition" and "literal" in self._peg.nodes[node["child"]]

    def _is_content(self, number: int) -> bool:
        return self._peg.nodes[number].get("tag") == "content"

    def _is_any_text(self, number: int) -> bool:
        node = self._peg.nodes[number]
        while node["type"] in ("rule", "atomic"):
            node = self._peg.nodes[node["child"]]
        return node["type"] == "until"

    def _silence(self, number: int) -> None:
        """Take the texts out of a node with reasoning."""
        for i in list(self._peg.below(number)):
            node = self._peg.nodes[i]
            if node["type"] == "choice":
                others = [child for child in node["children"] if not self._talks(child) or self._reasons(child)]
                node["children"] = others or node["children"]
        if not self._talks(number):
            return
        for i in list(self._peg.below(number)):
            node = self._peg.nodes[i]
            if node["type"] == "repetition" and self._talks(i):
                node["max_count"] = 1
            elif self._is_content(i):
                self._peg.nodes[i] = {"type": "gbnf", "child": node["child"], "grammar": ""}
