"""Python functions as tools."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from cyllama import LLM, ToolError
from cyllama.chat.tools import check_tools


def get_weather(location: str) -> str:
    """Get the weather.

    Args:
        location: The name of a city.
    """
    return f"It's sunny in {location}."


class Place(BaseModel):
    """A place on earth."""

    latitude: float
    longitude: float


async def book(
    place: Place,
    nights: Annotated[int, Field(ge=1, description="How many.")] = 1,
    kind: Literal["room", "suite"] = "room",
    *,
    guests: list[str],
) -> str:
    """Book a hotel.

    The price is not known before.

    Args:
        place (Place): Where it is,
            as coordinates.
        nights: Is described by its annotation.
        guests: Their names: first and last.

    Returns:
        A number.
    """
    return "1"


class Desk:
    """Something with methods."""

    def clock(self, city: str) -> str:
        """Return the time."""
        return city


def test_a_function_is_called_by_the_model(llm: LLM):
    question = {"role": "user", "content": "What is the weather in Paris?"}
    answer = llm.chat([question], tools=[get_weather])
    (call,) = answer.message.tool_calls
    assert call.function.name == "get_weather"
    result = {"role": "tool", "content": get_weather(**json.loads(call.function.arguments))}
    assert llm.chat([question, answer, result], tools=[get_weather]) == "It is sunny in Paris."
    assert llm.chat([question], tools=[get_weather], tool_choice="get_weather").finish_reason == "tool_calls"


def test_a_signature_and_a_docstring_are_what_the_model_is_told():
    (tool,) = check_tools([book])
    assert (tool.name, tool.description) == ("book", "Book a hotel.\n\nThe price is not known before.")
    properties = tool.parameters["properties"]
    assert {name: properties[name].get("description") for name in properties} == {
        "place": "Where it is, as coordinates.",
        "nights": "How many.",
        "kind": None,
        "guests": "Their names: first and last.",
    }
    assert tool.parameters["required"] == ["place", "guests"]
    assert properties["kind"]["enum"] == ["room", "suite"]
    assert tool.parameters["$defs"]["Place"]["required"] == ["latitude", "longitude"]


def test_methods_are_functions():
    (tool,) = check_tools([Desk().clock])
    assert (tool.name, tool.description, tool.parameters["required"]) == ("clock", "Return the time.", ["city"])


def test_a_function_without_arguments_or_docstring_is_a_tool(llm: LLM):
    def now():
        return 0

    (tool,) = check_tools([now])
    assert (tool.name, tool.description, tool.parameters["properties"]) == ("now", "", {})
    answer = llm.chat([{"role": "user", "content": "What time is it?"}], tools=[now], tool_choice="now")
    assert json.loads(answer.message.tool_calls[0].function.arguments) == {}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda city: city, "the name of tool 0"),
        (len, "the function 'len' cannot be described"),
        (functools.partial(get_weather, "Paris"), "tool 0 has to be a dict"),
    ],
)
def test_what_has_no_name_or_no_signature_is_refused(function: Any, message: str):
    with pytest.raises(ToolError, match=message):
        check_tools([function])


def test_a_function_that_takes_any_arguments_by_place_is_refused():
    def add(*numbers: int) -> int:
        return sum(numbers)

    def strange(value: threading.Lock) -> None:  # type: ignore # noqa: F821
        """Return nothing."""

    with pytest.raises(ToolError, match="'add' takes arguments without names"):
        check_tools([add])
    with pytest.raises(ToolError, match="'strange' cannot be described"):
        check_tools([strange])
