"""Native samplers for the constraint of an answer."""

from __future__ import annotations

from ..control_text import tokenize_after
from ..errors import GrammarError
from ..grammar import GrammarSpec
from ..llama.llama_cpp import LlamaSampler, LlamaVocab
from .plan import ChatPlan, escape


def grammar_sampler(vocab: LlamaVocab, plan: ChatPlan | GrammarSpec | None) -> LlamaSampler | None:
    """Return a sampler that keeps the tokens that a plan allows next, or ``None`` if it allows all.

    It belongs into a chain before the sampler that selects a token. If it needs the prompt, it has seen it.

    Raises:
        GrammarError: The grammar does not fit the vocabulary, or is too large for llama.cpp.
    """
    spec = plan.grammar if isinstance(plan, ChatPlan) else plan
    preserved = plan.preserved_tokens if isinstance(plan, ChatPlan) else ()
    if spec is None:
        return None
    try:
        if not spec.lazy:
            sampler = LlamaSampler.grammar(vocab, spec.text)
            if spec.prefix:
                sampler.accept(_prefix_tokens(vocab, spec.prefix))
            if spec.continued:
                sampler.accept(tokenize_after(vocab, spec.continued, parse_special=False))
            return sampler
        patterns: list[str] = []
        tokens: list[int] = []
        for trigger in spec.triggers:
            if trigger.kind == "word":
                ids = vocab.tokenize(trigger.value, add_special=False, parse_special=True)
                if len(ids) == 1 and trigger.value in preserved:
                    tokens.append(ids[0])
                else:
                    patterns.append(escape(trigger.value))
            elif trigger.kind == "pattern_full":
                patterns.append(f"^{trigger.value.removeprefix('^').removesuffix('$')}$")
            else:
                patterns.append(trigger.value)
        return LlamaSampler.grammar_lazy(vocab, spec.text, "root", patterns, tokens)
    except (ValueError, RuntimeError) as error:
        raise GrammarError(f"the grammar of the answer cannot be used: {error}") from error


def spec_samplers(vocab: LlamaVocab, plan: ChatPlan | GrammarSpec) -> list[LlamaSampler]:
    """Return the samplers that come before those of the config: a grammar, if there is one.

    Raises:
        GrammarError: The grammar does not fit the vocabulary, or is too large for llama.cpp.
    """
    sampler = grammar_sampler(vocab, plan)
    return [] if sampler is None else [sampler]


def plan_samplers(vocab: LlamaVocab, plan: ChatPlan) -> list[LlamaSampler]:
    """Return the samplers that come before those of the config: a grammar, a budget of reasoning.

    Raises:
        GrammarError: The grammar does not fit the vocabulary, or is too large for llama.cpp.
    """
    budget = [] if plan.reasoning is None else [plan.reasoning.sampler(vocab)]
    return [*spec_samplers(vocab, plan), *budget]


def preserved_token_ids(vocab: LlamaVocab, plan: ChatPlan) -> frozenset[int]:
    """Return the tokens that have to be rendered as text although they are control tokens."""
    found = (vocab.tokenize(text, add_special=False, parse_special=True) for text in plan.preserved_tokens)
    return frozenset(ids[0] for ids in found if len(ids) == 1)


def _prefix_tokens(vocab: LlamaVocab, prefix: str) -> list[int]:
    tokens = tokenize_after(vocab, prefix, parse_special=True)
    # Some tokenizers put a space before the first token.
    if tokens and not prefix[0].isspace():
        first = vocab.detokenize(tokens[:1], remove_special=False, unparse_special=True)
        if first.isspace():
            tokens = tokens[1:]
    return tokens
