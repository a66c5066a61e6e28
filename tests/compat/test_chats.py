"""Chats, as programs for llama-cpp-python ask for them and read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageFunctionToolCall
from pydantic import TypeAdapter

from cyllama import CompatibilityError, ConfigError, ImageError
from cyllama.compat import Llama, LlamaGrammar
from cyllama.compat.types import CreateChatCompletionResponse, CreateChatCompletionStreamResponse

GREEDY: Any = {"temperature": 0}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
FUNCTION = {
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
SHAPE = TypeAdapter(CreateChatCompletionResponse)
CHUNK_SHAPE = TypeAdapter(CreateChatCompletionStreamResponse)


def message_of(answer: Any) -> Any:
    return answer["choices"][0]["message"]


def test_an_answer_is_a_dict_of_openais_shape(llama: Llama):
    answer = llama.create_chat_completion(messages=QUESTION, **GREEDY)
    assert SHAPE.validate_python(answer) == answer, "nothing else is in it"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    usage = answer["usage"]
    assert usage["prompt_tokens"] == llama.llm.count_tokens(QUESTION)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_begins_with_the_role_and_ends_with_reason_and_usage(llama: Llama):
    chunks = list(llama.create_chat_completion(QUESTION, stream=True, **GREEDY))
    for chunk in chunks:
        assert CHUNK_SHAPE.validate_python(chunk) == chunk, "nothing else is in it"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert (deltas[0], deltas[-1]) == ({"role": "assistant"}, {})
    assert "".join(delta["content"] for delta in deltas[1:-1]) == ANSWER
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].get("usage") == llama.create_chat_completion(QUESTION, **GREEDY)["usage"]


def test_the_next_turn_evaluates_only_what_is_new(llama: Llama):
    messages: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    messages.append(message_of(llama.create_chat_completion(messages, **GREEDY)))
    messages.append({"role": "user", "content": "What is my name?"})
    before = llama.llm.stats
    answer = llama.create_chat_completion(messages, **GREEDY)
    assert message_of(answer)["content"] == "Your name is Ada."
    evaluated = llama.llm.stats.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    assert evaluated < answer["usage"]["prompt_tokens"] - 15


def test_a_tool_is_called_with_a_finish_reason_that_says_so(llama: Llama):
    answer = llama.create_chat_completion(WEATHER, tools=TOOLS, tool_choice="auto", **GREEDY)
    assert SHAPE.validate_python(answer) == answer, "nothing else is in it"
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    message = message_of(answer)
    (call,) = message["tool_calls"]
    assert (message["content"], call["type"], call["function"]["name"]) == (None, "function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"location": "Paris"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "It's sunny in Paris."}
    last = llama.create_chat_completion([*WEATHER, message, result], tools=TOOLS, **GREEDY)
    assert message_of(last)["content"] == "It is sunny in Paris."


def test_a_stream_of_a_call_has_its_name_once_and_its_arguments_in_pieces(llama: Llama):
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    chunks = list(llama.create_chat_completion(WEATHER, tools=TOOLS, tool_choice=choice, stream=True, **GREEDY))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert {tuple(sorted(delta)) for delta in deltas} == {("content", "function_call", "role", "tool_calls")}
    pieces = [piece for delta in deltas for piece in delta["tool_calls"] or ()]
    assert [delta["function_call"] for delta in deltas[1:-1]] == [piece["function"] for piece in pieces]
    assert [piece["function"].get("name") for piece in pieces] == ["get_weather"] + [None] * (len(pieces) - 1)
    assert [bool(piece.get("id")) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)) == {"location": "Paris"}


def test_functions_are_tools_by_their_old_name(llama: Llama):
    answer = llama.create_chat_completion(
        WEATHER, functions=[FUNCTION], function_call={"name": "get_weather"}, **GREEDY
    )
    message = message_of(answer)
    assert message["function_call"] == message["tool_calls"][0]["function"]
    none = llama.create_chat_completion(WEATHER, functions=[FUNCTION], function_call="none", **GREEDY)
    assert "tool_calls" not in message_of(none)
    with pytest.raises(ConfigError, match="functions is the old name of tools"):
        llama.create_chat_completion(WEATHER, functions=[FUNCTION], tools=TOOLS)


def test_the_objects_of_openais_package(llama: Llama):
    answer = llama.create_chat_completion_openai_v1(WEATHER, tools=TOOLS, **GREEDY)
    assert isinstance(answer, ChatCompletion)
    message = answer.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    history: Any = [*WEATHER, message, {"role": "tool", "tool_call_id": call.id, "content": "It's sunny in Paris."}]
    with llama.create_chat_completion_openai_v1(history, tools=TOOLS, stream=True, **GREEDY) as stream:
        chunks = list(stream)
    assert {type(chunk) for chunk in chunks} == {ChatCompletionChunk}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is sunny in Paris."
    assert (chunks[-1].choices[0].finish_reason, chunks[-1].usage is not None) == ("stop", True)


def test_a_stream_of_openais_package_is_read_by_that_package(llama: Llama):
    """Its state adds up the pieces of a call as those of OpenAI's own API."""
    state = ChatCompletionStreamState()
    for chunk in llama.create_chat_completion_openai_v1(WEATHER, tools=TOOLS, stream=True, **GREEDY):
        state.handle_chunk(chunk)
    message = state.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert (message.tool_calls[0].function.name, message.content) == ("get_weather", None)
    assert json.loads(message.tool_calls[0].function.arguments) == {"location": "Paris"}


def test_json_of_a_schema(llama: Llama):
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}, "required": ["age"]}
    answer = llama.create_chat_completion(
        [{"role": "user", "content": "Extract the age as JSON: Ada is 36 years old."}],
        response_format={"type": "json_object", "schema": schema},
        max_tokens=64,
        **GREEDY,
    )
    assert set(json.loads(message_of(answer)["content"])) == {"age"}
    grammar = LlamaGrammar.from_json_schema(json.dumps(schema))
    by_grammar = llama.create_chat_completion(QUESTION, grammar=grammar, max_tokens=64, **GREEDY)
    assert set(json.loads(message_of(by_grammar)["content"])) == {"age"}


def test_logprobs_are_those_of_the_tokens_of_the_answer(llama: Llama):
    answer = llama.create_chat_completion(QUESTION, logprobs=True, top_logprobs=2, **GREEDY)
    assert SHAPE.validate_python(answer) == answer, "nothing else is in it"
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs is not None
    content = logprobs["content"]
    assert content is not None
    assert b"".join(bytes(token["bytes"] or ()) for token in content) == ANSWER.encode()
    assert {len(token["top_logprobs"]) for token in content} == {2}
    chunks = llama.create_chat_completion(QUESTION, logprobs=True, top_logprobs=2, stream=True, **GREEDY)
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    tokens = [token["token"] for each in streamed if each and each["content"] for token in each["content"]]
    assert tokens == [token["token"] for token in content]
    with pytest.raises(ConfigError, match="needs logprobs=True"):
        llama.create_chat_completion(QUESTION, top_logprobs=2)


def test_several_answers_and_a_seed_for_each(llama: Llama):
    story = [{"role": "user", "content": "Tell me a story about a fox."}]
    options: Any = {"temperature": 1.2, "max_tokens": 24}
    answer = llama.create_chat_completion(story, n=3, seed=1, **options)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] <= 72
    with pytest.raises(CompatibilityError, match="n=2 cannot be used with stream"):
        llama.create_chat_completion(story, n=2, stream=True)


@pytest.mark.parametrize("chat_format", ["chatml", "llama-2", "llama-3", "mistral-instruct", "zephyr", "gemma"])
def test_chat_formats_are_templates(chat_format: str, llama: Llama):
    with Llama(llama.model_path, chat_format=chat_format, n_threads=1) as other:
        answer = other.create_chat_completion(QUESTION, max_tokens=4, **GREEDY)
        template = {"llama-2": "llama2-sys", "llama-3": "llama3", "mistral-instruct": "mistral-v1"}.get(chat_format)
        prompt = llama.llm.render(QUESTION, chat_template=template or chat_format)
        assert answer["usage"]["prompt_tokens"] in (llama.llm.count_tokens(prompt), llama.llm.count_tokens(prompt) + 1)


def test_a_format_that_does_not_exist_is_refused_when_the_model_is_loaded(llama: Llama):
    with pytest.raises(ValueError, match="'functionary-v2' is not a chat template"):
        Llama(llama.model_path, chat_format="functionary-v2")


def test_images_need_a_projector_instead_of_a_handler(llama: Llama):
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with pytest.raises(ImageError, match="no address is fetched"):
        llama.create_chat_completion([{"role": "user", "content": [image]}])
    with pytest.raises(CompatibilityError, match="projector names the file that reads images"):
        Llama(llama.model_path, chat_handler=object())
