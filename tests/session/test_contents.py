"""What a conversation holds after an answer, whatever ended it."""

from __future__ import annotations

import pytest

from cyllama import LLM, ContextSizeError, DecodeError
from cyllama.engine import Engine

from ..support.conversations import (
    CAPITAL,
    END,
    IDS,
    NEARLY_TIED,
    STORY,
    check_integrity,
    counting,
    regret,
    tokens_of,
    user,
)
from ..support.harness import ENDLESS


def test_history_ends_where_the_visible_text_ends(llm: LLM):
    ada = llm.session()
    whole = llm(STORY)
    stop = whole[33:42]
    answer = ada(STORY, stop_sequences=[stop])
    assert answer == whole[: whole.index(stop)]
    assert ada.tokens < answer.usage.total_tokens
    assert llm.detokenize(tokens_of(ada)) == llm.detokenize(llm.tokenize(STORY)) + answer
    history = tokens_of(ada)
    follow = ada("", max_tokens=20)
    assert regret(llm, [*history, *tokens_of(ada)[len(history) :]], len(history)) < NEARLY_TIED
    assert follow.usage.prompt_tokens == len(history)


def test_a_stop_sequence_at_once_leaves_the_prompt_only(llm: LLM):
    ada = llm.session()
    assert ada(CAPITAL, stop_sequences=["The"]) == ""
    assert ada.tokens == llm.count_tokens(CAPITAL)
    assert ada("") == "The capital of France is Paris."


def test_a_repeated_answer_keeps_the_ids_that_were_sampled(llm: LLM):
    letter = llm.tokenize("o")
    odd = {letter[0]: 1000.0}
    answer = llm(CAPITAL, session="ada", logit_bias=odd, max_tokens=6)
    sampled = letter * 6
    assert answer == "oooooo"
    assert llm.tokenize(answer) != sampled, "otherwise this shows nothing"
    n_prompt, rest = llm.count_tokens(CAPITAL), END + CAPITAL
    with counting(llm) as turn:
        again = llm(CAPITAL + answer + rest, session="ada")
    ada = llm.session("ada")
    assert tokens_of(ada)[n_prompt : n_prompt + 6] == sampled
    assert again.usage.prompt_tokens == n_prompt + 6 + llm.count_tokens(rest)
    assert again.usage.cached_tokens == n_prompt + 6 - 1
    assert turn.evaluated == llm.count_tokens(rest) + 1
    third = llm(CAPITAL + answer + rest + again + rest, session="ada")
    assert tokens_of(ada)[n_prompt : n_prompt + 6] == sampled
    assert third.usage.cached_tokens >= again.usage.total_tokens - 1 - 1


def test_a_changed_answer_is_tokenized_again(llm: LLM):
    letter = llm.tokenize("o")
    answer = llm(CAPITAL, session="ada", logit_bias={letter[0]: 1000.0}, max_tokens=6)
    changed = CAPITAL + answer[:-1] + "x" + END
    response = llm(changed, session="ada", max_tokens=1)
    assert tokens_of(llm.session("ada"))[:-1] == llm.tokenize(changed)
    assert response.usage.prompt_tokens == llm.count_tokens(changed)


def test_ids_that_were_given_are_not_mistaken_for_their_text(llm: LLM):
    odd = llm.tokenize("o") * 6
    assert odd != llm.tokenize("oooooo")
    llm([*llm.tokenize(CAPITAL), *odd], session="ada", max_tokens=0)
    whole = CAPITAL + "oooooo" + END
    llm(whole, session="ada", max_tokens=0)
    assert tokens_of(llm.session("ada")) == llm.tokenize(whole)


@pytest.mark.usefixtures("lockstep")
def test_a_cancelled_answer_is_kept_as_far_as_it_went(llm: LLM):
    ada = llm.session("ada")
    with ada(STORY, stream=True) as stream:
        for _ in range(5):
            next(stream)
    text = stream.response
    assert (text.finish_reason, ada.tokens) == ("cancelled", text.usage.total_tokens)
    whole = llm(STORY + text + END + CAPITAL, session="ada")
    assert whole.usage.cached_tokens >= text.usage.total_tokens - 1
    check_integrity(llm)


def test_a_turn_cancelled_before_it_began_leaves_nothing(llm: LLM):
    ada = llm.session("ada")
    with ada(STORY, stream=True, **ENDLESS) as running:
        next(running)
        waiting = ada(CAPITAL, stream=True)
        waiting.close()
        assert (waiting.response, waiting.response.finish_reason) == ("", "cancelled")
    assert ada.tokens == running.response.usage.total_tokens


def test_an_exception_of_a_callback_ends_the_turn_and_not_the_session(llm: LLM):
    ada = llm.session("ada")
    held = ada(user("My name is Ada.")).usage.total_tokens

    def fail(chunk: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ada("\n" + CAPITAL, on_token=fail)
    answer = ada(END + user("What is my name?"))
    assert answer == "Your name is Ada."
    assert answer.usage.cached_tokens > held


def test_a_prompt_that_is_too_long_leaves_the_session_as_it_was(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    with pytest.raises(ContextSizeError, match=rf"{len(held) + 500} tokens but n_ctx is 300"):
        ada(IDS[:500], n_ctx=300)
    with pytest.raises(ContextSizeError, match="2048"):
        ada(IDS[:2048])
    with pytest.raises(ContextSizeError, match="2048"):
        llm(IDS[:2100], session="ada")
    assert tokens_of(ada) == held
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", len(held) - 1)


def test_a_conversation_ends_at_the_end_of_the_context(llm: LLM):
    ada = llm.session()
    response = ada(CAPITAL, n_ctx=100, max_tokens=None, ignore_eos=True)
    assert (response.finish_reason, ada.tokens) == ("length", 100)
    with pytest.raises(ContextSizeError, match="101 tokens but n_ctx is 100"):
        ada(IDS[:1], n_ctx=100)
    assert ada(IDS[:1], max_tokens=1).usage.prompt_tokens == 101


def test_a_failure_leaves_the_conversation_as_it_was(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    """The failure is a real one: the context is closed under the engine, as no caller should."""
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held, step = tokens_of(ada), Engine._step

    def sabotaged_step(self: Engine) -> None:
        [request] = self._scheduler.running
        if len(request.tokens) == 10:
            assert self._context.context is not None
            self._context.context.close()
        step(self)

    monkeypatch.setattr(Engine, "_step", sabotaged_step)
    with pytest.raises(DecodeError, match="failed after 10 tokens"):
        ada("\n" + STORY)
    monkeypatch.undo()
    assert tokens_of(ada) == held
    assert ada("\n" + user("What is my name?")) == "Your name is Ada."
    check_integrity(llm)
