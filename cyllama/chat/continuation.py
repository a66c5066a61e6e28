"""The plan of an answer that continues the last message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..control_text import RenderedChat
from ..errors import GrammarError, MessageError, OutputError
from ..grammar import GrammarSpec
from ..llama.llama_cpp import LlamaVocab
from .parser import as_content
from .plan import ChatPlan
from .prefill import Prefill, continued
from .sampling import grammar_sampler


def continue_plan(
    plan: ChatPlan, prefill: Prefill, prompt: RenderedChat, ways: list[str], vocab: LlamaVocab
) -> ChatPlan:
    """Return the plan of an answer that continues the last message.

    Args:
        plan: The plan of an answer in a message of its own.
        prefill: What the answer continues.
        prompt: The prompt, which ends with the prefill.
        ways: The possible beginnings of the answer in the prompt.
        vocab: The vocabulary of the model.

    Raises:
        MessageError: The text of the last message cannot begin an answer of that form.
    """
    budget = plan.reasoning and replace(plan.reasoning, inside=not prefill.content)
    plan = replace(plan, prompt=prompt, prefill=prefill.content, reasoning=budget)
    spec = plan.grammar
    of_caller = plan.read is as_content and plan.response_format is None
    if plan.response_format is not None and prefill.content:
        if _is_whole(plan, prefill):
            raise MessageError(f"the last message, {prefill.content!r:.80}, is a whole answer of that form already")
        heads = [way.removesuffix(prefill.content) for way in ways]
        said = [(head, text) for text in (prefill.content, prefill.content.lstrip()) for head in heads]
        return replace(plan, grammar=_first_that_fits(spec, prefill, said, vocab), read=as_content)
    first = plan
    begin, read = continued(plan.read, prefill, ways)
    plan = replace(plan, read=read)
    if spec is None or of_caller:
        return plan
    if spec.lazy:
        return replace(plan, grammar=spec if prefill.content else _within_reasoning(spec))
    # A required call follows the text of the message.
    head = begin.removesuffix(prefill.content)
    said = [(head, prefill.content), (head, ""), (head.strip(), "")]
    try:
        return replace(plan, grammar=_first_that_fits(spec, prefill, said, vocab))
    except MessageError:  # in this format, a call cannot follow text: it is written and read from the beginning
        return replace(first, grammar=_first_that_fits(spec, prefill, [("", "")], vocab))


def _is_whole(plan: ChatPlan, prefill: Prefill) -> bool:
    """Whether a value is complete."""
    try:
        return plan.response_format is not None and plan.response_format.parse(prefill.content) is not None
    except OutputError:
        return False


def _first_that_fits(
    spec: GrammarSpec | None, prefill: Prefill, beginnings: Iterable[tuple[str, str]], vocab: LlamaVocab
) -> GrammarSpec | None:
    """Return a grammar that goes on from the first text, of the template and the message, that it allows."""
    for head, said in beginnings:
        begun = spec and replace(spec, prefix=spec.prefix + head, continued=said)
        try:
            grammar_sampler(vocab, begun)
        except GrammarError:
            continue
        return begun
    raise MessageError(f"the last message, {prefill.text!r:.80}, cannot be the beginning of an answer of that form")


def _within_reasoning(spec: GrammarSpec) -> GrammarSpec:
    """Return a grammar that ignores calls within reasoning: the answer goes on within reasoning."""
    return replace(spec, triggers=tuple(trigger for trigger in spec.triggers if not trigger.value.startswith("^(?!")))
