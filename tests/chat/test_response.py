"""Answers of chats are texts with what is known of them."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from cyllama import LLM, ChatDelta, ChatResponse, Message
from cyllama.chat import Function, ToolCall

QUESTION = {"role": "user", "content": "What is the capital of France?"}
ANSWER = "The capital of France is Paris."


def test_an_answer_is_a_text(llm: LLM):
    answer = llm.chat([QUESTION])
    assert (answer, answer.text, str(answer)) == (ANSWER, ANSWER, ANSWER)
    assert (len(answer), answer + "!", "A: " + answer) == (len(ANSWER), ANSWER + "!", "A: " + ANSWER)
    assert "Paris" in answer
    assert json.loads(json.dumps({"answer": answer})) == {"answer": ANSWER}
    assert type(answer.text) is type(str(answer)) is str


def test_an_answer_is_a_message_of_the_next_call(llm: LLM):
    answer = llm.chat([QUESTION])
    more = {"role": "user", "content": "Who are you?"}
    expected = llm.chat([QUESTION, answer.message, more])
    assert llm.chat([QUESTION, answer, more]) == expected
    assert llm.chat([QUESTION, {"role": "assistant", "content": answer}, more]) == expected
    assert llm.render([QUESTION, answer, more]) == llm.render([QUESTION, answer.message, more])
    session = llm.session("ada")
    session.chat([QUESTION])
    assert session.chat([QUESTION, answer, more]).usage.cached_tokens > 20


def test_an_answer_that_calls_a_tool_keeps_its_call_in_the_history(llm: LLM):
    tool = {"name": "get_weather", "parameters": {"properties": {"location": {"type": "string"}}}}
    weather = {"role": "user", "content": "What is the weather in Paris?"}
    answer = llm.chat([weather], tools=[tool])
    assert (answer.finish_reason, answer.text) == ("tool_calls", "")
    assert answer, "a call is an answer"
    result = {"role": "tool", "content": "It's sunny in Paris."}
    assert llm.chat([weather, answer, result], tools=[tool]) == "It is sunny in Paris."


def test_an_answer_of_nothing_is_false():
    assert not ChatResponse(Message(role="assistant", content=""))
    call = ToolCall(id="1", function=Function(name="clock"))
    assert ChatResponse(Message(role="assistant", tool_calls=[call]))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda answer: pickle.loads(pickle.dumps(answer))])
def test_an_answer_can_be_copied(llm: LLM, again: Any):
    answer = llm.chat([QUESTION], logprobs=1)
    other = again(answer)
    assert type(other) is ChatResponse
    assert (other, vars(other)) == (answer, vars(answer))


def test_a_delta_is_written_as_its_text(llm: LLM, capsys: pytest.CaptureFixture[str]):
    for delta in llm.chat([QUESTION], stream=True):
        print(delta, end="")
    assert capsys.readouterr().out == ANSWER
    assert (str(ChatDelta(reasoning_content="Hm.")), f"{ChatDelta('Yes')}") == ("", "Yes")
