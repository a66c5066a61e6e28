"""What no grammar can say of a JSON schema is checked in the value of a structured answer."""

from __future__ import annotations

import pytest

from langchain_cyllama import ChatCyllama, OutputParsingError

UNIQUE = {
    "title": "letters",
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True, "minItems": 2, "maxItems": 2}
    },
    "required": ["a"],
}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_value_is_valid_under_the_whole_schema(chat: ChatCyllama, method: str):
    valid = 0
    wrong = 0
    for seed in range(60):
        model = chat.model_copy(update={"temperature": 1.0, "seed": seed})
        try:
            value = model.with_structured_output(UNIQUE, method=method).invoke("Pick letters.")  # pyright: ignore[reportArgumentType]
        except OutputParsingError:
            wrong += 1
        else:
            assert sorted(value["a"]) == ["x", "y"]
            valid += 1
        if valid and wrong:
            return
    raise AssertionError((valid, wrong))
