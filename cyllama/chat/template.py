"""A chat as the model was trained to read it, and how its answer is constrained and read."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..control_text import ControlText, RenderedChat
from ..errors import ChatTemplateError, ConfigError, MessageError
from ..grammar import (
    GrammarSpec,
    ResponseFormat,
    ResponseFormatLike,
    Trigger,
    check_grammar,
    check_response_format,
    finish_grammar,
)
from ..llama.llama_cpp import LlamaChatParams, LlamaChatTemplates, LlamaModel
from . import call_ids, history, merging
from .continuation import continue_plan
from .marking import Marking
from .merging import Messages
from .messages import MessageLike, check_messages
from .parser import Read, as_content
from .plan import ChatPlan, escape
from .prefill import Prefill, beginnings, end_mark, put_mark, split_prefill, written_by_hand
from .reasoning import budget_of
from .tools import (
    OWN_TEMPLATE,
    Tool,
    ToolChoice,
    ToolChoiceLike,
    ToolLike,
    check_tool_choice,
    check_tools,
    describe_tools,
    dump_tools,
)
from .variables import TemplateVariables, check_variables

_MAX_TEMPLATE = 2**20
_CACHED = 16  # templates, and formats of answers

_NO_TEMPLATE = (
    "the model has no chat template: pass one as chat_template, Jinja source, or a prompt as text instead of messages"
)


class ChatTemplates:
    """The chat templates that are used with one model, each compiled once.

    Args:
        model: The model.
        control_text: The texts of its control tokens, if there is one already.
    """

    def __init__(self, model: LlamaModel, control_text: ControlText | None = None) -> None:
        self._model = model
        self.control_text = ControlText(model) if control_text is None else control_text
        self._templates: OrderedDict[str, LlamaChatTemplates] = OrderedDict()
        self._formats: OrderedDict[tuple[Any, ...], LlamaChatParams] = OrderedDict()

    def get(self, chat_template: str | None = None) -> LlamaChatTemplates:
        """Return a template compiled: Jinja source, or ``None`` for the model's own.

        Raises:
            ChatTemplateError: There is none, or it is no template.
        """
        if chat_template is None:
            if self._model.chat_template() is None:
                raise ChatTemplateError(_NO_TEMPLATE)
        elif not isinstance(chat_template, str) or not chat_template.strip():
            raise ChatTemplateError(f"a chat template is Jinja source, not {chat_template!r:.80}")
        elif len(chat_template) > _MAX_TEMPLATE:
            raise ChatTemplateError(
                f"the chat template has {len(chat_template)} characters, but {_MAX_TEMPLATE} are the limit"
            )
        key = chat_template or ""
        template = self._templates.get(key)
        if template is None:
            try:
                template = LlamaChatTemplates(self._model, key)
            except (RuntimeError, ValueError) as error:
                raise ChatTemplateError(f"{_whose(chat_template)} cannot be compiled: {error}") from error
            _remember(self._templates, key, template)
        return template

    def render(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool = True,
    ) -> RenderedChat:
        """Return the prompt for messages, which tells its control tokens from text that only spells them.

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            tools: Tools that the prompt describes.
            chat_template: Jinja source to use instead of the model's own.
            chat_template_kwargs: Variables of the template by name, JSON values.
            enable_thinking: Whether the model reasons, where its template can be told.
            reasoning_effort: How hard it reasons, by OpenAI's names, where its template can be told.
            continue_final_message: Whether the prompt ends with what the last message says, the assistant's; ``None``
                does so if there is such a message.
            add_generation_prompt: Whether the prompt ends with the beginning of the assistant's answer.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            MessageError: The messages are no chat.
            ToolError: A tool is not defined as one.
            ConfigError: A variable of the template cannot be set, or two arguments contradict each other.
            PromptError: A text has lone surrogates.
        """
        variables = check_variables(chat_template_kwargs, enable_thinking, reasoning_effort)
        wanted = continue_final_message if add_generation_prompt or continue_final_message else False
        checked, offered = check_messages(messages), check_tools(tools)
        before, prefill = split_prefill(checked, wanted)

        def new_chat(chosen: Messages) -> _Chat:
            return _Chat(self, list(chosen), offered, chat_template, variables)

        if prefill is None:
            return new_chat(before).render(add_generation_prompt=add_generation_prompt)[0]
        try:
            return _continuation(prefill, new_chat(before or _NOTHING_SAID), new_chat(checked))[0]
        except MessageError:
            if continue_final_message:
                raise
            return new_chat(checked).render()[0]

    def prepare(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike] | None = None,
        tool_choice: ToolChoiceLike = None,
        response_format: ResponseFormatLike = None,
        grammar: str | None = None,
        parallel_tool_calls: bool = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        reasoning_budget: int | None = None,
        continue_final_message: bool | None = None,
    ) -> ChatPlan:
        """Return the prompt for messages, and how to generate and read the answer.

        The prompt does not depend on ``tool_choice``, ``response_format`` or ``grammar``.

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            tools: Tools that the model may call.
            tool_choice: "none", "auto" (the default), "required" or "any", the name of a tool, or OpenAI's dict.
            response_format: "json", a JSON schema, OpenAI's dict, or a pydantic model.
            grammar: GBNF that the answer has to fit.
            parallel_tool_calls: Whether one answer may call several tools.
            chat_template: Jinja source to use instead of the model's own.
            chat_template_kwargs: Variables of the template by name, JSON values.
            enable_thinking: Whether the model reasons, where its template can be told.
            reasoning_effort: How hard it reasons, by OpenAI's names, where its template can be told.
            reasoning_budget: Tokens that it may reason with; then the end of the reasoning is forced. ``None`` or -1
                for any number; 0 turns reasoning off.
            continue_final_message: Whether the answer continues the last message, which is the assistant's; ``None``
                does so if there is such a message, and what it says can begin an answer of that form.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            MessageError: The messages are no chat.
            ToolError: A tool is not defined as one, or ``tool_choice`` is none.
            SchemaError: A schema cannot be converted to a grammar.
            GrammarError: ``grammar`` is none.
            ConfigError: ``tools``, ``response_format`` and ``grammar`` exclude each other, or a variable cannot be set.
            PromptError: A text has lone surrogates.
        """
        checked = check_tools(tools)
        choice = check_tool_choice(tool_choice, checked)
        expected = check_response_format(response_format)
        if grammar is not None:
            check_grammar(grammar, self._model.vocab)
        if (expected is not None) + (grammar is not None) + (choice.mode != "none") > 1:
            raise ConfigError(
                "an answer has one form: pass only one of tools, response_format and grammar, or tool_choice='none'"
            )
        variables = check_variables(chat_template_kwargs, enable_thinking, reasoning_effort, reasoning_budget)
        history = check_messages(messages)
        before, prefill = split_prefill(history, continue_final_message)

        def new_chat(chosen: Messages) -> _Chat:
            return _Chat(self, list(chosen), checked, chat_template, variables)

        def plan(chat: _Chat) -> ChatPlan:
            if choice.mode != "none":
                return chat.with_tools(choice, parallel_tool_calls)
            return chat.plain(grammar) if expected is None else chat.with_format(expected)

        if prefill is None:
            return plan(new_chat(before))
        chat = new_chat(before or _NOTHING_SAID)
        begun = plan(chat)
        try:
            prompt, ways = _continuation(prefill, chat, new_chat(history))
            return continue_plan(begun, prefill, prompt, ways, self._model.vocab)
        except MessageError:
            if continue_final_message:
                raise
            return plan(new_chat(history))  # it is answered in a turn of its own

    def format_of(self, key: tuple[Any, ...], template: LlamaChatTemplates, **options: Any) -> LlamaChatParams:
        """Apply a template, or return what it gave before for the same ``key``; the prompt may be another one."""
        params = self._formats.get(key)
        if params is None:
            params = template.apply(**options)
            _remember(self._formats, key, params)
        return params


def render(model: LlamaModel, messages: Sequence[MessageLike], **options: Any) -> str:
    """Return the prompt for messages, which ends where the assistant's answer begins: :meth:`ChatTemplates.render`."""
    return ChatTemplates(model).render(messages, **options)


def prepare(model: LlamaModel, messages: Sequence[MessageLike], **options: Any) -> ChatPlan:
    """Return the prompt for messages, and how to generate and read the answer: :meth:`ChatTemplates.prepare`."""
    return ChatTemplates(model).prepare(messages, **options)


_NOTHING_SAID: Messages = ({"role": "user", "content": ""},)


def _continuation(prefill: Prefill, before: _Chat, whole: _Chat) -> tuple[RenderedChat, list[str]]:
    """Return a prompt that ends with what is continued, and what may be the beginning of the answer in it."""
    start, params = before.render()
    try:
        prompt = whole.render_to_the_end()
    except ChatTemplateError:
        prompt = None
    control_text = before.control_text
    said, thought = (control_text.plain(control_text.mark(text)) for text in (prefill.text, prefill.reasoning))
    if prompt is None or not prompt.endswith(said.lstrip()):
        prompt = before.render_by_hand(prefill)
    elif thought.strip() not in prompt and params.thinking_start_tag and params.thinking_end_tags:
        prompt = before.render_by_hand(prefill)  # of an answer that is not complete, no template should drop it
    return prompt, beginnings(prefill, prompt, start, params)


# ------------------------------------------------------------------------------------------------------------ one chat


class _Chat:
    """One chat on its way to a plan."""

    def __init__(
        self,
        templates: ChatTemplates,
        messages: list[dict[str, Any]],
        tools: list[Tool],
        chat_template: str | None,
        variables: TemplateVariables,
    ) -> None:
        self._templates = templates
        self.control_text = templates.control_text
        self._source = chat_template
        self._template = templates.get(chat_template)
        self._tools = tools
        self._variables = variables
        self._thinking = variables.thinking
        caps = self._template.caps
        self._own_tools = not (caps["supports_tools"] and caps["supports_tool_calls"])
        messages = history.order_results(call_ids.unique_ids(messages))
        if not self._own_tools and not caps["supports_parallel_tool_calls"]:
            messages = history.one_call_each(messages)
        if call_ids.names_calls_by_id(self._template.source):
            messages = call_ids.named_ids(messages)
        self._messages = messages
        self._way: merging.Way = merging.as_it_is
        self._end_mark = ""

    def render_to_the_end(self) -> RenderedChat | None:
        """Render the messages as far as the last one says something; ``None`` if the template loses where that is."""
        self._end_mark = end_mark(self._messages)
        try:
            marked = self.render(add_generation_prompt=False)[0].marked
        finally:
            mark, self._end_mark = self._end_mark, ""
        end = marked.rfind(mark)
        return None if end < 0 else self.control_text.rendered(marked[:end])

    def render_by_hand(self, prefill: Prefill) -> RenderedChat:
        """Render the messages, and put what the answer continues behind them.

        Raises:
            MessageError: There is no place for reasoning.
        """
        prompt, params = self.render()
        texts = written_by_hand(prefill, params)
        if texts is None:
            raise MessageError(f"{_whose(self._source)} has no place for the reasoning of the last message")
        ours = (self.control_text.mark(text) if i % 2 else text for i, text in enumerate(texts))
        return self.control_text.rendered(prompt.marked + "".join(ours))

    def render(self, *, add_generation_prompt: bool = True) -> tuple[RenderedChat, LlamaChatParams]:
        """Render the messages; return the prompt, and how an answer without tools is read."""
        result = self._render_some_way(add_generation_prompt)
        lost = history.lost_texts(self._messages, result[0])
        for other in history.alternatives(self._messages) if lost else ():
            try:
                rendered = self._render(other, add_generation_prompt)
            except ChatTemplateError:
                continue
            if history.lost_texts(self._messages, rendered[0]) < lost:
                self._messages = other
                return rendered
        return result

    def _render_some_way(self, add_generation_prompt: bool) -> tuple[RenderedChat, LlamaChatParams]:
        """Render the messages as they are if the template takes them so, else in a way that says the same."""
        refused: ChatTemplateError | None = None
        best: tuple[int, list[dict[str, Any]], merging.Way, tuple[RenderedChat, LlamaChatParams]] | None = None
        for messages in self._with_ids():
            self._messages, described = messages, self._described(messages, self._tools)
            for way in merging.ways(described, has_system_role=self._template.caps["supports_system_role"]):
                self._way = way
                try:
                    result = self._render(messages, add_generation_prompt)
                except ChatTemplateError as error:
                    refused = refused or error
                    continue
                dropped = self._count_dropped(described, result[0], add_generation_prompt)
                if not dropped:
                    return result
                if best is None or dropped < best[0]:
                    best = dropped, messages, way, result
        if best is not None:
            _, self._messages, self._way, result = best
            return result
        if self._own_tools or refused is None or not any(message["role"] == "tool" for message in self._messages):
            raise refused or ChatTemplateError(f"{_whose(self._source)} refuses these messages")
        self._own_tools = True  # calls and their results in words
        return self._render_some_way(add_generation_prompt)

    def _with_ids(self) -> Iterator[list[dict[str, Any]]]:
        yield self._messages
        if not call_ids.are_nine(self._messages):
            yield call_ids.nine_letters_or_digits(self._messages)

    def _count_dropped(self, described: merging.Messages, prompt: str, add_generation_prompt: bool) -> int:
        """Return how many system messages the template leaves out, written the way that is tried."""
        doubtful = merging.doubtful_systems(described, prompt)
        if not doubtful:
            return 0
        way, self._way = self._way, merging.with_probes(self._way, doubtful)
        try:
            return merging.missing_probes(self._render(self._messages, add_generation_prompt)[0], doubtful)
        except ChatTemplateError:
            return 0
        finally:
            self._way = way

    def _described(self, messages: Sequence[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        return describe_tools(messages, tools) if self._own_tools else list(messages)

    def _render(
        self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> tuple[RenderedChat, LlamaChatParams]:
        control_text = self._templates.control_text
        marking = Marking(control_text)
        text, params = self._apply(marking, messages, add_generation_prompt)
        prompt = control_text.rendered(text)
        # Some templates write "<" + name + ">". With a mark in every such name, comparisons of them may fail.
        if inside := control_text.enclosed(prompt, marking.texts):
            text, _ = self._apply(Marking(control_text, inside), messages, add_generation_prompt)
            marked = control_text.rendered(text)
            prompt = marked if marked == prompt else prompt
        return prompt, params

    def _apply(
        self, marking: Marking, messages: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> tuple[str, LlamaChatParams]:
        # What our own text says of tools is the template's, what messages and tools say is not.
        offered = marking.tools(self._tools)
        tools = "" if self._own_tools else dump_tools(offered)
        marked = marking.messages(messages)
        if self._end_mark:
            marked[-1] = put_mark(marked[-1], self._end_mark)
        messages = self._way(self._described(marked, offered))
        options: dict[str, Any] = {
            "messages": json.dumps(messages, ensure_ascii=False),
            "tools": tools,
            "tool_choice": "none",
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": self._thinking,
            "chat_template_kwargs": marking.variables(self._variables.others),
        }
        if self._template.specialized:
            return self._render_specialized(options)
        try:
            rendered = self._template.apply(**options, force_pure_content=True)
        except (RuntimeError, ValueError) as error:
            raise ChatTemplateError(f"{_whose(self._source)} refuses these messages: {_reason(error)}") from error
        # How the answer is written is found by rendering the template a hundred times, and the same for all messages.
        key = ("plain", self._source, rendered.generation_prompt, tools, add_generation_prompt, self._variables.key)
        try:
            params = self._templates.format_of(key, self._template, **options)
        except (RuntimeError, ValueError):  # it cannot be told: all of it is content
            params = rendered
        return rendered.prompt, params if params.generation_prompt == rendered.generation_prompt else rendered

    def _render_specialized(self, options: dict[str, Any]) -> tuple[str, LlamaChatParams]:
        """Render the messages as llama.cpp does for this template only."""
        try:
            params = self._template.apply(**options)
        except (RuntimeError, ValueError) as error:
            try:
                params = self._template.apply(**options, force_pure_content=True)
            except (RuntimeError, ValueError):
                raise ChatTemplateError(f"{_whose(self._source)} refuses these messages: {_reason(error)}") from error
        return params.prompt, params

    def plain(self, grammar: str | None) -> ChatPlan:
        """Plan an answer in words, or in those of a grammar of the caller's."""
        prompt, rendered = self.render()
        if grammar is None:
            marked = self._template.specialized or rendered.supports_thinking or rendered.preserved_tokens
            return self._plan(prompt, rendered, rendered, None, rendered.parse if marked else as_content)
        return self._plan(prompt, rendered, rendered, GrammarSpec(grammar), as_content)

    def with_format(self, expected: ResponseFormat) -> ChatPlan:
        """Plan an answer in JSON."""
        prompt, rendered = self.render()
        params = self._format(rendered, "", "none", json_schema=expected.dump())
        if params is None or not params.grammar:
            return self._plan(prompt, rendered, rendered, GrammarSpec(expected.grammar), as_content, expected)
        text = _FENCE_OR_SPACE.sub("response-format", finish_grammar(params.grammar, [expected.conversion]))
        spec = GrammarSpec(text, prefix=params.generation_prompt)
        return self._plan(prompt, rendered, params, spec, params.parse, expected)

    def with_tools(self, choice: ToolChoice, parallel: bool) -> ChatPlan:
        """Plan an answer that may or has to call tools."""
        conversions = {tool.name: tool.convert(i) for i, tool in enumerate(choice.allowed(self._tools))}
        offered = dump_tools([Tool(name, "", conversion.schema) for name, conversion in conversions.items()])
        mode = "required" if choice.mode == "required" else "auto"
        prompt, rendered = self.render()
        params, spec = None, None
        if not self._own_tools:
            params = self._format(rendered, offered, mode, parallel_tool_calls=parallel)
            if params is not None:
                spec = self._native_grammar(rendered, params, offered, parallel)
        if params is not None and spec is not None:
            read = params.parse
        else:  # nothing that tells calls from text is known of the template
            if not self._own_tools:
                self._own_tools = True
                prompt, rendered = self.render()
            params = self._own_format(offered, mode, parallel)
            spec = _grammar_spec(params, rendered, self._thinking)
            read = params.parse
            if mode == "auto" and rendered.supports_thinking:
                read = _after_reasoning(rendered.parse, params.parse)
        text = _only_calls(finish_grammar(spec.text, conversions.values()), parallel)
        plan = self._plan(prompt, rendered, params, replace(spec, text=text), read)
        return replace(
            plan,
            strict={
                tool.name: conversions[tool.name] for tool in self._tools if tool.strict and tool.name in conversions
            },
        )

    def _plan(
        self,
        prompt: str,
        rendered: LlamaChatParams,
        params: LlamaChatParams,
        grammar: GrammarSpec | None,
        read: Read,
        expected: ResponseFormat | None = None,
    ) -> ChatPlan:
        preserved = dict.fromkeys([*rendered.preserved_tokens, *params.preserved_tokens])
        stops = dict.fromkeys([*rendered.additional_stops, *params.additional_stops])
        budget = None if read is as_content else budget_of(self._variables.budget, rendered)
        return ChatPlan(prompt, grammar, tuple(stops), tuple(preserved), expected, read, budget)

    def _native_grammar(
        self, rendered: LlamaChatParams, params: LlamaChatParams, tools: str, parallel: bool
    ) -> GrammarSpec | None:
        """Return the grammar of calls as the template writes them."""
        if params.grammar:
            return _grammar_spec(params, rendered, self._thinking)
        # A call may begin with nothing but a brace: llama.cpp has a grammar for it only where it is required.
        required = self._format(rendered, tools, "required", parallel_tool_calls=parallel)
        if required is None or not _CALLS_AT_END.search(required.grammar):
            return None
        text = _CALLS_AT_END.sub(r"root ::= \1", required.grammar)
        return GrammarSpec(text, lazy=True, triggers=(Trigger("pattern", _JSON_CALL),))

    def _format(self, rendered: LlamaChatParams, tools: str, choice: str, **options: Any) -> LlamaChatParams | None:
        """Return how the template writes an answer, or ``None`` if that cannot be told."""
        key = (self._source, rendered.generation_prompt, tools, choice, self._variables.key, *sorted(options.items()))
        try:
            params = self._templates.format_of(
                key,
                self._template,
                messages=json.dumps(self._way(self._described(self._messages, self._tools)), ensure_ascii=False),
                tools=tools,
                tool_choice=choice,
                enable_thinking=self._thinking,
                chat_template_kwargs=self._variables.others,
                **options,
            )
        except (RuntimeError, ValueError):
            return None
        return params if params.generation_prompt == rendered.generation_prompt else None

    def _own_format(self, tools: str, choice: str, parallel: bool) -> LlamaChatParams:
        key = ("own", tools, choice, parallel)
        return self._templates.format_of(
            key,
            self._templates.get(OWN_TEMPLATE),
            messages='[{"role": "user", "content": ""}]',
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=parallel,
        )


# What is corrected in llama.cpp's grammars: JSON may stand in a code fence; any number of calls is allowed, and none; a
# call that is required may come after any text.
_FENCE_OR_SPACE = re.compile(
    r'(space )*\(("```json" space response-format space "```" \| )?space response-format space\)', re.MULTILINE
)
_CALLS_AT_END = re.compile(r"^root ::= .*?(tool-calls?)$", re.MULTILINE)
_JSON_CALL = r'^\s*(\{\s*"(?:name|type|function)")'
_CALLS = re.compile(r"^(tool-calls ::= )\((tool-call)\??( space)\)\+$", re.MULTILINE)
_TEXT_BEFORE = re.compile(r"^(root ::= .*?)(?:\bspace )*\buntil-\d+\? (?=tool-call)", re.MULTILINE)


def _only_calls(grammar: str, parallel: bool) -> str:
    grammar = _CALLS.sub(r"\1\2\3 (\2\3)*" if parallel else r"\1\2\3", grammar)
    return _TEXT_BEFORE.sub(r"\1", grammar)


def _grammar_spec(params: LlamaChatParams, rendered: LlamaChatParams, thinking: bool) -> GrammarSpec:
    if not params.grammar_lazy:
        return GrammarSpec(params.grammar, prefix=params.generation_prompt)
    triggers = _triggers(params, rendered if thinking and rendered.supports_thinking else None)
    return GrammarSpec(params.grammar, lazy=True, triggers=triggers)


def _triggers(params: LlamaChatParams, thinking: LlamaChatParams | None) -> tuple[Trigger, ...]:
    """Return what the grammar begins at, and not already while the model reasons about it."""
    triggers = tuple(Trigger(kind, value) for kind, value in params.grammar_triggers)
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


def _reason(error: Exception) -> str:
    """Return what a template says of messages that it refuses, without where in its source it says so."""
    found = re.search(r"Jinja Exception: (.*)", str(error))
    return found[1] if found else str(error).strip()


def _whose(chat_template: str | None) -> str:
    return "the model's chat template" if chat_template is None else "the chat template"


def _remember(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    while len(cache) > _CACHED:
        cache.popitem(last=False)
