"""How the answer to a chat is generated and read: in words, in JSON, or with calls of tools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..control_text import RenderedChat
from ..grammar import GrammarSpec, ResponseFormat, Trigger, finish_grammar
from ..llama.llama_cpp import LlamaChatParams
from .call_schemas import CallSchemas
from .native_calls import NativeFormat
from .parser import Read, as_content
from .plan import ChatPlan, escape
from .reasoning import budget_of
from .rendering import Chat
from .tools import OWN_TEMPLATE, Tool
from .variables import TemplateVariables


def plain(chat: Chat, grammar: str | None) -> ChatPlan:
    """Plan an answer in words, or in those of a grammar of the caller's."""
    prompt, rendered = chat.render()
    if grammar is not None:
        return _plan(chat, prompt, rendered, rendered, GrammarSpec(grammar), as_content)
    marked = chat.is_marked or rendered.supports_thinking or rendered.preserved_tokens
    read = _late_reasoning(chat, rendered, rendered.parse) if marked else as_content
    return _plan(chat, prompt, rendered, rendered, None, read)


def with_format(chat: Chat, expected: ResponseFormat) -> ChatPlan:
    """Plan an answer in JSON."""
    prompt, rendered = chat.render()
    params = chat.format(rendered, json_schema=expected.dump())
    if params is None or not params.grammar:
        return _plan(chat, prompt, rendered, rendered, GrammarSpec(expected.grammar), as_content, expected)
    text = _FENCE_OR_SPACE.sub("response-format", finish_grammar(params.grammar, [expected.conversion]))
    spec = GrammarSpec(text, prefix=params.generation_prompt)
    return _plan(chat, prompt, rendered, params, spec, params.parse, expected)


def with_tools(
    chat: Chat, tools: Sequence[Tool], mode: str, parallel: bool, expected: ResponseFormat | None
) -> ChatPlan:
    """Plan an answer that may or has to call tools.

    Args:
        chat: The chat.
        tools: The tools that may be called.
        mode: "auto" or "required".
        parallel: Whether one answer may have several calls.
        expected: What an answer without calls has to look like.
    """
    prompt, rendered = chat.render()
    native = chat.native_here(rendered)
    if native is None:  # llama.cpp does not know how this template marks calls
        if chat.native is not None:
            chat.use_own_format()
            prompt, rendered = chat.render()
        native = _own_format(chat)
        own = True
    else:
        own = False
    answer = expected if mode == "auto" else None
    lazy = mode == "auto" and answer is None
    schemas = CallSchemas(tools, answer)
    name = schemas.answer() if answer is not None else None
    writing = native.writing(schemas, lazy=lazy, parallel=parallel, answer=name)
    text = schemas.complete(writing.grammar)
    read = native.reader(tools)
    if own and lazy and rendered.supports_thinking:
        read = _after_reasoning(rendered.parse, read)
    if lazy:
        thinking = rendered if chat.thinking and rendered.supports_thinking else None
        spec = GrammarSpec(text, lazy=True, triggers=_triggers(writing.triggers, thinking))
    else:
        spec = GrammarSpec(text, prefix=native.params.generation_prompt)
    plan = _plan(chat, prompt, rendered, native.params, spec, _late_reasoning(chat, rendered, read), answer)
    return replace(plan, strict={tool.name: tool.convert(i) for i, tool in enumerate(tools) if tool.strict})


def _own_format(chat: Chat) -> NativeFormat:
    found = chat.templates.native(OWN_TEMPLATE, TemplateVariables())
    assert found is not None
    return found


# A correction of llama.cpp's grammars: JSON may be inside a code fence.
_FENCE_OR_SPACE = re.compile(
    r'(space )*\(("```json" space response-format space "```" \| )?space response-format space\)', re.MULTILINE
)
_JSON_CALL = r'^\s*(\{\s*"(?:name|type|function)")'


def _triggers(found: Sequence[tuple[str, str]], thinking: LlamaChatParams | None) -> tuple[Trigger, ...]:
    """Return the triggers of the grammar, which do not match within reasoning."""
    if not found:  # only a brace marks the beginning of a call
        return (Trigger("pattern", _JSON_CALL),)
    triggers = tuple(Trigger(kind, value) for kind, value in found)
    if thinking is None or not thinking.thinking_start_tag or not thinking.thinking_end_tags:
        return triggers
    start = escape(thinking.thinking_start_tag)
    end = "(?:" + "|".join(map(escape, thinking.thinking_end_tags)) + ")"
    result: list[Trigger] = []
    for trigger in triggers:
        if trigger.kind != "word":
            result.append(trigger)
            continue
        result.append(Trigger("pattern", rf"{end}[\s\S]*?({escape(trigger.value)})"))
        if not thinking.generation_prompt.rstrip().endswith(thinking.thinking_start_tag):
            result.append(Trigger("pattern", rf"^(?!\s*{start})[\s\S]*?({escape(trigger.value)})"))
    return tuple(result)


def _after_reasoning(first: Read, then: Read) -> Read:
    def read(text: str, is_partial: bool) -> tuple[str, str, list[tuple[str, str, str]]]:
        rest, reasoning, _ = first(text, is_partial)
        content, _, calls = then(rest, is_partial)
        return content, reasoning, calls

    return read


def _late_reasoning(chat: Chat, rendered: LlamaChatParams, read: Read) -> Read:
    """Return a reader that recognizes reasoning also where the model was told not to reason."""
    start = rendered.thinking_start_tag.strip()
    ends = [tag.strip() for tag in rendered.thinking_end_tags if tag.strip()]
    if chat.thinking or not start or not ends:
        return read

    def read_reasoning(text: str, is_partial: bool) -> tuple[str, str, list[tuple[str, str, str]]]:
        content, reasoning, calls = read(text, is_partial)
        beginning = content.lstrip()
        if is_partial and not calls and beginning and start.startswith(beginning):
            return "", reasoning, calls
        if not beginning.startswith(start):
            return content, reasoning, calls
        thought, end, rest = beginning[len(start) :].partition(ends[0])
        if end:
            return rest.lstrip(), reasoning + thought, calls
        if is_partial:
            thought = thought[: len(thought) - _overlap(thought, ends[0])]
        return "", reasoning + thought, calls

    return read_reasoning


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of a text are the beginning of a tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)


def _plan(
    chat: Chat,
    prompt: RenderedChat,
    rendered: LlamaChatParams,
    params: LlamaChatParams,
    grammar: GrammarSpec | None,
    read: Read,
    expected: ResponseFormat | None = None,
) -> ChatPlan:
    preserved = dict.fromkeys([*rendered.preserved_tokens, *params.preserved_tokens])
    stops = dict.fromkeys([*rendered.additional_stops, *params.additional_stops])
    budget = None if read is as_content else budget_of(chat.variables.budget, rendered)
    return ChatPlan(prompt, grammar, tuple(stops), tuple(preserved), expected, read, budget)
