"""Chat models and their chains, saved and loaded."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.load import dumps, loads
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_cyllama import ChatCyllama

from ..support.chats import (
    CAPITAL,
    JOKE,
    Joke,
    add,
)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_saved_model_is_loaded() -> None:
    saved = dumps(ChatCyllama(temperature=0, max_tokens=12, stop=["x"], session_id="ada"))
    more: list[dict[str, Any]] = [
        {"allowed_objects": "all"},
        {"allowed_objects": [ChatCyllama]},
        {"allowed_objects": "all", "valid_namespaces": ["langchain_cyllama"]},
    ]
    for arguments in more:
        loaded = loads(saved, **arguments)
        assert isinstance(loaded, ChatCyllama)
        assert (loaded.temperature, loaded.max_tokens, loaded.stop, loaded.session_id) == (0, 12, ["x"], "ada")
        assert loaded.invoke(CAPITAL).text


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_saved_chain_is_loaded() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    for model in (ChatCyllama(temperature=0), ChatCyllama(temperature=0).bind_tools([add]).bind(stop=["!"])):
        chain = prompt | model | StrOutputParser()
        loaded = loads(dumps(chain), allowed_objects="all")
        assert loaded.invoke({"question": CAPITAL}) == chain.invoke({"question": CAPITAL})


def test_a_structured_chain_can_be_pickled() -> None:
    with ChatCyllama(temperature=0) as chat:
        for schema in (Joke, Joke.model_json_schema()):
            for method in ("json_schema", "function_calling"):
                chain = chat.with_structured_output(schema, method=method)
                answer = chain.invoke(JOKE)
                again: Any = pickle.loads(pickle.dumps(chain))
                assert isinstance(again.invoke(JOKE), Joke) == (schema is Joke)
                assert copy.deepcopy(chain).invoke(JOKE) == answer


def test_a_structured_chain_that_keeps_the_raw_answer_can_be_pickled() -> None:
    with ChatCyllama(temperature=0) as chat:
        for schema in (Joke, Joke.model_json_schema()):
            chain = chat.with_structured_output(schema, include_raw=True)
            again: Any = pickle.loads(pickle.dumps(chain))
            assert again.invoke(JOKE)["parsed"] == chain.invoke(JOKE)["parsed"]
            chain = chat.with_structured_output(schema, include_raw=True, max_tokens=4)
            again = pickle.loads(pickle.dumps(chain))
            assert isinstance(again.invoke(JOKE)["parsing_error"], OutputParserException)
