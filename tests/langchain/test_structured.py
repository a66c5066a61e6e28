"""Structured output: the value of an answer that is whole, and an error for every other one."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from cyllama import LLM, ConfigError, OutputError, SchemaError
from langchain_cyllama import ChatCyllama, OutputParsingError
from langchain_cyllama._schemas import to_tool

from ..support.chats import JOKE, Joke, JokeDict

METHODS: list[Any] = ["json_schema", "function_calling", "json_mode"]
QUESTION = "Extract name and age as JSON: Ada Lovelace is 36 years old."


class Person(BaseModel):
    """A person. What is missing has a default, so that half of an answer is a person too."""

    name: Literal["Ada Lovelace"]
    age: int = 0


class PersonDict(TypedDict):
    """A person."""

    name: Literal["Ada Lovelace"]
    age: Literal[123456]


PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"const": "Ada Lovelace"}, "age": {"const": 123456}},
    "required": ["name", "age"],
}
WHOLE = {"name": "Ada Lovelace", "age": 123456}
SCHEMAS = pytest.mark.parametrize("schema", [Person, PersonDict, PERSON], ids=["pydantic", "TypedDict", "JSON schema"])


def last_of_stream(chain: Runnable[Any, Any]) -> Any:
    *_, last = chain.stream(QUESTION)
    return last


async def last_of_astream(chain: Runnable[Any, Any]) -> Any:
    return [value async for value in chain.astream(QUESTION)][-1]


WAYS: dict[str, Callable[[Runnable[Any, Any]], Any]] = {
    "invoke": lambda chain: chain.invoke(QUESTION),
    "batch": lambda chain: chain.batch([QUESTION])[0],
    "stream": last_of_stream,
    "ainvoke": lambda chain: asyncio.run(chain.ainvoke(QUESTION)),
    "abatch": lambda chain: asyncio.run(chain.abatch([QUESTION]))[0],
    "astream": lambda chain: asyncio.run(last_of_astream(chain)),
}


def outcome(chain: Runnable[Any, Any], way: str) -> dict[str, Any]:
    """Return the dict of `include_raw`, whichever way it comes."""
    if way not in ("stream", "astream"):
        return WAYS[way](chain)
    pieces = list(chain.stream(QUESTION)) if way == "stream" else asyncio.run(_collect(chain))
    total, *others = pieces
    for piece in others:
        total = total + piece
    return dict(total)


async def _collect(chain: Runnable[Any, Any]) -> list[Any]:
    return [piece async for piece in chain.astream(QUESTION)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@SCHEMAS
def test_an_answer_that_max_tokens_cut_has_no_value(chat: ChatCyllama, schema: Any, method: Any, way: str) -> None:
    with pytest.raises(OutputParsingError, match="max_tokens") as caught:
        WAYS[way](chat.with_structured_output(schema, method=method, max_tokens=14))
    assert isinstance(caught.value, OutputParserException)
    assert isinstance(caught.value, OutputError)
    assert caught.value.text == caught.value.llm_output

    got = outcome(chat.with_structured_output(schema, method=method, max_tokens=14, include_raw=True), way)
    assert got["parsed"] is None
    assert isinstance(got["parsing_error"], OutputParsingError)
    assert got["raw"].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@SCHEMAS
def test_an_answer_that_a_stop_string_cut_has_no_value(chat: ChatCyllama, schema: Any, method: Any, way: str) -> None:
    stop = ["ove", " Lo"] if method != "json_mode" else [":"]
    with pytest.raises(OutputParsingError, match=r"stop string.*max_tokens"):
        WAYS[way](chat.with_structured_output(schema, method=method, stop=stop))
    got = outcome(chat.with_structured_output(schema, method=method, stop=stop, include_raw=True), way)
    assert got["parsed"] is None
    assert isinstance(got["parsing_error"], OutputParsingError)


class _Resets(BaseCallbackHandler):
    """Resets the conversation of an answer while it is generated."""

    def __init__(self, chat: ChatCyllama) -> None:
        self._chat = chat
        self._tokens = 0

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self._tokens += 1
        if self._tokens == 3:
            self._chat.reset_session("ada")


@pytest.mark.parametrize("method", METHODS)
@SCHEMAS
@pytest.mark.usefixtures("lockstep")
def test_an_answer_that_was_cancelled_has_no_value(chat: ChatCyllama, schema: Any, method: Any) -> None:
    structured = chat.with_structured_output(schema, method=method, session_id="ada")
    with pytest.raises(OutputParsingError, match="cancelled"):
        for _ in structured.stream("Tell me a long story about a fox.", {"callbacks": [_Resets(chat)]}):
            pass


@pytest.mark.parametrize("method", METHODS[:2])
@SCHEMAS
def test_wherever_an_answer_is_cut_it_is_whole_or_an_error(chat: ChatCyllama, schema: Any, method: Any) -> None:
    whole = chat.with_structured_output(schema, method=method).invoke(QUESTION)
    values = []
    for n in range(1, 60, 2):
        structured: Any = chat.with_structured_output(schema, method=method, include_raw=True, max_tokens=n)
        for got in (structured.invoke(QUESTION), outcome(structured, "stream")):
            assert (got["parsed"] is None) == isinstance(got["parsing_error"], OutputParsingError)
            values += [got["parsed"]] if got["parsed"] is not None else []
    assert values
    assert all(value == whole for value in values)
    if schema is not Person:
        assert whole == WHOLE


def test_a_stream_of_a_dict_grows_and_ends_with_an_error_where_it_was_cut(chat: ChatCyllama) -> None:
    *parts, whole = chat.with_structured_output(PERSON).stream(QUESTION)
    assert whole == WHOLE
    assert parts[0] == {}
    assert {"name": "Ada Lovelace"} in parts
    seen: list[Any] = []
    with pytest.raises(OutputParsingError):
        seen.extend(chat.with_structured_output(PERSON, max_tokens=14).stream(QUESTION))
    assert WHOLE not in seen


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_stream_of_an_instance_is_the_whole_instance(chat: ChatCyllama, method: Any) -> None:
    structured = chat.with_structured_output(Person, method=method)
    assert list(structured.stream(QUESTION)) == [structured.invoke(QUESTION)]


def test_a_batch_keeps_the_answers_that_are_whole(chat: ChatCyllama) -> None:
    structured = chat.with_structured_output(PERSON)
    cut = chat.with_structured_output(PERSON, max_tokens=14)
    whole, error = structured.batch([QUESTION])[0], cut.batch([QUESTION], return_exceptions=True)[0]
    assert whole == WHOLE
    assert isinstance(error, OutputParsingError)


def test_an_answer_of_prose_is_an_error_that_shows_it() -> None:
    from langchain_cyllama._structured import AnswerParser

    parser = AnswerParser(load=json.loads, tool="Person")
    with pytest.raises(OutputParsingError, match=r"does not call 'Person'.*I do not know"):
        parser.invoke(AIMessage("I do not know."))
    assert AnswerParser(load=json.loads, tool="Person", optional=True).invoke(AIMessage("I do not know.")) is None


def test_an_error_of_parsing_survives_a_pickle(chat: ChatCyllama) -> None:
    got: Any = chat.with_structured_output(PERSON, include_raw=True, max_tokens=14).invoke(QUESTION)
    error = got["parsing_error"]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.text, again.llm_output) == (str(error), error.text, error.text)


# -------------------- schemas


@dataclass
class Point:
    x: int
    y: int


class Tree(BaseModel):
    """A tree."""

    name: Literal["leaf", "node"]
    parts: list[Tree] = Field(max_length=2)


POINT = {"type": "object", "properties": {"x": {"const": 1}, "y": {"const": 2}}, "required": ["x", "y"]}


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Literal[7], 7),
        (list[Literal["a"]], ["a"]),
        (Annotated[list[Literal[1]], Field(min_length=2, max_length=2)], [1, 1]),
        (POINT, {"x": 1, "y": 2}),
        ({"type": "array", "items": POINT, "minItems": 1, "maxItems": 1}, [{"x": 1, "y": 2}]),
        ({"title": "Points", "type": "array", "items": {"const": 3}, "minItems": 2, "maxItems": 2}, [3, 3]),
        ({"const": "yes"}, "yes"),
        ({"type": "null"}, None),
        ({"title": "A point of the map", **POINT}, {"x": 1, "y": 2}),
        ({"name": "point", "schema": POINT}, {"x": 1, "y": 2}),
        ({"name": "point", "description": "A point.", "parameters": POINT}, {"x": 1, "y": 2}),
        ({"name": "point", "description": "A point.", "input_schema": POINT}, {"x": 1, "y": 2}),
        ({"type": "function", "function": {"name": "point", "parameters": POINT}}, {"x": 1, "y": 2}),
    ],
    ids=repr,
)
def test_anything_that_has_a_schema_can_be_asked_for(chat: ChatCyllama, method: Any, schema: Any, value: Any) -> None:
    structured = chat.with_structured_output(schema, method=method)
    exact = structured.invoke("Answer.")
    if not isinstance(schema, dict) and value == ["a"]:
        assert set(exact) <= {"a"}
    else:
        assert exact == value
    *_, last = structured.stream("Answer.")
    assert last == exact


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_dataclass_gives_an_instance(chat: ChatCyllama, method: Any) -> None:
    assert isinstance(chat.with_structured_output(Point, method=method).invoke("A point."), Point)
    points: Any = chat.with_structured_output(Annotated[list[Point], Field(max_length=2)], method=method)
    assert all(isinstance(point, Point) for point in points.invoke("Points."))


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_class_that_contains_itself_is_asked_for_as_it_is(chat: ChatCyllama, method: Any) -> None:
    structured = chat.with_structured_output(Tree, method=method, temperature=2.0, top_k=0, max_tokens=1000)
    trees: list[Any] = [structured.bind(seed=seed).invoke("A tree.") for seed in range(5)]
    assert all(isinstance(tree, Tree) for tree in trees)


def test_a_tool_whose_arguments_contain_themselves_is_described_in_full() -> None:
    def plant(tree: Tree) -> str:
        """Plant a tree."""
        return tree.name

    for source in (Tree, plant, tool(plant)):
        function = to_tool(source)["function"]
        assert function["description"] in ("A tree.", "Plant a tree.")
        parts = function["parameters"]["$defs"]["Tree"]["properties"]["parts"]
        assert parts == {"items": {"$ref": "#/$defs/Tree"}, "maxItems": 2, "type": "array"}


def test_a_schema_that_cannot_be_read_is_an_error(chat: ChatCyllama) -> None:
    with pytest.raises(SchemaError, match="no JSON schema of"):
        chat.with_structured_output(Callable[[int], int])  # pyright: ignore[reportArgumentType]


# -------------------- rules that no grammar can enforce

LETTERS = {
    "title": "Letters",
    "type": "object",
    "properties": {
        "letters": {"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True, "minItems": 2, "maxItems": 2}
    },
    "required": ["letters"],
}


def seeds(chat: ChatCyllama, method: Any) -> tuple[int, int]:
    """Return a seed whose first answer is valid, and one whose first answer is not."""
    options: dict[str, Any] = {"method": method, "include_raw": True, "temperature": 2.0, "top_k": 0}
    answers: list[Any] = [
        chat.with_structured_output(LETTERS, seed=seed, **options).invoke(QUESTION) for seed in range(12)
    ]
    valid = [answer["parsed"] is not None for answer in answers]
    return valid.index(True), valid.index(False)


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_value_that_is_not_valid_is_an_error_or_sampled_again(chat: ChatCyllama, method: Any) -> None:
    options: dict[str, Any] = {"method": method, "temperature": 2.0, "top_k": 0}
    good, bad = seeds(chat, method)
    once = chat.with_structured_output(LETTERS, seed=bad, **options)
    for way in WAYS.values():
        with pytest.raises(OutputParsingError, match=r"does not fit the schema.*non-unique"):
            way(once)
    again = chat.with_structured_output(LETTERS, seed=bad, max_attempts=40, **options)
    assert all(sorted(way(again)["letters"]) == ["x", "y"] for way in WAYS.values())
    before = chat.client.stats.tokens_generated
    structured = chat.with_structured_output(LETTERS, seed=good, max_attempts=40, include_raw=True, **options)
    answer: Any = structured.invoke(QUESTION)
    assert chat.client.stats.tokens_generated - before == answer["raw"].usage_metadata["output_tokens"]


def test_a_call_of_a_strict_tool_that_is_not_valid_is_an_invalid_call(chat: ChatCyllama) -> None:
    _, bad = seeds(chat, "function_calling")
    options: dict[str, Any] = {"tool_choice": "any", "temperature": 2.0, "top_k": 0, "seed": bad}
    function = {"name": "Letters", "description": "", "parameters": LETTERS}
    tools = [{"type": "function", "function": {**function, "strict": True}}]
    strict = chat.bind_tools(tools, **options)
    total, *others = strict.stream(QUESTION)
    for chunk in others:
        total += chunk  # pyright: ignore[reportAssignmentType]
    answers: list[Any] = [strict.invoke(QUESTION), asyncio.run(strict.ainvoke(QUESTION)), total]
    for message in answers:
        assert message.tool_calls == []
        (call,) = message.invalid_tool_calls
        assert "non-unique" in (call["error"] or "")
    assert chat.bind_tools(tools, max_attempts=40, **options).invoke(QUESTION).tool_calls


def test_a_wrong_number_of_attempts_is_refused(chat: ChatCyllama) -> None:
    with pytest.raises(ConfigError, match="max_attempts is an integer from 1"):
        chat.invoke("Hello", max_attempts=0)


# -------------------- with a model's jokes


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("schema", [Joke, JokeDict, Joke.model_json_schema()], ids=["pydantic", "TypedDict", "schema"])
def test_an_answer_has_the_form_of_its_schema(chat: ChatCyllama, method: Any, schema: Any) -> None:
    question = JOKE
    if method == "json_mode":
        question += " Return the result as a JSON with 'setup' and 'punchline' keys. Return nothing other than JSON."
    structured = chat.with_structured_output(schema, method=method)
    *_, last = structured.stream(question)
    for joke in (structured.invoke(question), asyncio.run(structured.ainvoke(question)), last):
        fields = joke.model_dump() if isinstance(joke, BaseModel) else joke
        assert fields.keys() == {"setup", "punchline"}
        assert isinstance(joke, Joke) == (schema is Joke)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_the_raw_answer_is_returned_with_the_parsed_one_if_asked(chat: ChatCyllama, method: Any) -> None:
    structured = chat.with_structured_output(Joke, method=method, include_raw=True)
    answer: Any = structured.invoke(JOKE)
    assert isinstance(answer["raw"], AIMessage)
    assert isinstance(answer["parsed"], Joke)
    assert answer["parsing_error"] is None
    cut: Any = chat.with_structured_output(Joke, method=method, include_raw=True, max_tokens=12).invoke(JOKE)
    assert cut["parsed"] is None
    assert cut["raw"].response_metadata["finish_reason"] == "length"


def test_an_answer_that_was_cut_has_no_instance(chat: ChatCyllama) -> None:
    with pytest.raises(OutputParserException):
        chat.with_structured_output(Joke, max_tokens=5).invoke(JOKE)


def test_a_schema_of_an_openai_format_is_a_schema(chat: ChatCyllama) -> None:
    inner = {"name": "joke", "schema": Joke.model_json_schema(), "strict": True}
    for schema in (inner, {"type": "json_schema", "json_schema": inner}):
        answer: Any = chat.with_structured_output(schema).invoke(JOKE)
        assert answer.keys() == {"setup", "punchline"}
    bound = chat.bind(response_format={"type": "json_schema", "json_schema": inner}, strict=True)
    assert json.loads(bound.invoke(JOKE).text).keys() == {"setup", "punchline"}


def test_a_format_of_the_object_is_that_of_all_calls(llm: LLM) -> None:
    for chat in (ChatCyllama(llm=llm, format="json"), ChatCyllama(llm=llm, format=Joke.model_json_schema())):
        assert isinstance(json.loads(chat.invoke(JOKE).text), dict)


def test_a_method_that_does_not_exist_is_an_error(chat: ChatCyllama) -> None:
    with pytest.raises(ConfigError, match="'xml'"):
        chat.with_structured_output(Joke, method="xml")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="needs a schema"):
        chat.with_structured_output()
