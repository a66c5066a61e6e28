"""The requests to create customers are reproducible and valid, and those of the evaluation are never trained on."""

from __future__ import annotations

from typing import Any

import pytest

from training.corpus import evaluation_case
from training.customers import customer_dialogues
from training.dialogue import Dialogue, is_held_out


def trained(seed: int, count: int = 1000) -> list[Dialogue]:
    """Dialogues to train on."""
    return list(customer_dialogues(seed, count))


def evaluated(seeds: int = 300) -> list[Dialogue]:
    """Cases of the evaluation."""
    return [evaluation_case("create_customer", seed) for seed in range(seeds)]


def call_in(dialogue: Dialogue) -> dict[str, Any]:
    """The call with which a dialogue ends."""
    [call] = dialogue.messages[-1]["tool_calls"]
    return call["function"]


def name_in(dialogue: Dialogue) -> str:
    """The name of the customer to create."""
    return next(iter(call_in(dialogue)["arguments"].values()))


def test_a_seed_determines_the_dialogues() -> None:
    def seen(seed: int) -> list[Any]:
        return [(dialogue.messages, dialogue.tools) for dialogue in trained(seed, 50)]

    assert seen(1) == seen(1) != seen(2)


def test_the_call_names_an_offered_tool_and_all_of_its_parameters() -> None:
    for dialogue in trained(1):
        offered = {tool["function"]["name"]: tool["function"] for tool in dialogue.tools}
        assert len(offered) == len(dialogue.tools)
        call = call_in(dialogue)
        assert list(call["arguments"]) == offered[call["name"]]["parameters"]["required"]


def test_the_arguments_are_what_the_request_says() -> None:
    for dialogue in trained(1):
        request = dialogue.messages[-2]["content"]
        assert all(argument in request for argument in call_in(dialogue)["arguments"].values())


def test_the_remark_in_parentheses_is_no_part_of_the_name() -> None:
    dialogues = trained(1)
    remarks = [dialogue for dialogue in dialogues if "(" in dialogue.messages[-2]["content"]]
    assert 0.5 * len(dialogues) < len(remarks) < len(dialogues)
    assert not any("(" in argument for dialogue in remarks for argument in call_in(dialogue)["arguments"].values())


@pytest.mark.parametrize(
    ("script_name", "first", "last"), [("CJK", "一", "鿿"), ("kana", "ぁ", "ヿ"), ("Cyrillic", "А", "я")]
)
def test_names_are_in_every_script(script_name: str, first: str, last: str) -> None:
    dialogues = trained(1)
    assert sum(any(first <= letter <= last for letter in name_in(dialogue)) for dialogue in dialogues) > 100
    assert sum(name_in(dialogue).isascii() for dialogue in dialogues) > 100


def test_evaluation_asks_for_names_that_training_never_draws() -> None:
    assert all(is_held_out(name_in(case).lower()) for case in evaluated())
    assert not any(is_held_out(name_in(example).lower()) for example in trained(1))


def test_a_new_phrasing_is_one_that_training_never_uses() -> None:
    cases = [evaluation_case("create_customer", seed, new_phrasing=True) for seed in range(50)]
    assert all(case.messages[-2]["content"].startswith("Please add ") for case in cases)
    assert not any(example.messages[-2]["content"].startswith("Please add ") for example in trained(1))


@pytest.mark.parametrize("name", ["你好啊集团", "こんにちは株式会社"])
def test_the_names_of_langchains_tests_are_not_trained_on(name: str) -> None:
    assert name not in map(name_in, trained(1, 3000))
