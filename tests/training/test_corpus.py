"""The corpus is reproducible, complete, and keeps apart what is trained on from what is evaluated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from training import corpus, evaluate, words
from training.dialogue import Rng, is_held_out

#: Of the first 100 dialogues of seed 1. To change it is to train on another corpus.
DIGEST = "ee53fdb6e675a663ed4e22a6b13831793c1fd5559e651020ea5b111a2b87788b"
EVALUATED = json.loads((Path(__file__).resolve().parents[2] / "training" / "eval.json").read_text(encoding="utf-8"))
SEEDS = range(40)


def training_dialogues(seed: int) -> list[dict[str, Any]]:
    """What the model sees of 100 dialogues."""
    return [
        {"messages": dialogue.messages, "tools": dialogue.tools}
        for dialogue in corpus.dialogues(seed, count=100, longest=4)
    ]


def test_a_seed_determines_the_dialogues() -> None:
    first = training_dialogues(1)
    assert first == training_dialogues(1)
    assert first != training_dialogues(2)


def test_the_corpus_has_not_changed() -> None:
    text = json.dumps(training_dialogues(1), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_every_training_dialogue_ends_with_the_assistant() -> None:
    for dialogue in corpus.dialogues(3, count=300, longest=6):
        assert dialogue.messages[-1]["role"] == "assistant"
        assert [message["role"] for message in dialogue.messages].count("system") <= 1


def test_every_skill_was_evaluated() -> None:
    assert list(corpus.SKILLS) == list(EVALUATED)


@pytest.mark.parametrize("new_phrasing", [False, True])
@pytest.mark.parametrize("skill", EVALUATED)
def test_a_case_ends_with_its_reference_answer(skill: str, new_phrasing: bool) -> None:
    for seed in SEEDS:
        *prompt, answer = corpus.evaluation_case(skill, seed, new_phrasing=new_phrasing).messages
        assert answer["role"] == "assistant"
        assert answer["content"] or answer["tool_calls"]
        assert prompt[-1]["role"] in ("user", "tool")


@pytest.mark.parametrize("skill", EVALUATED)
def test_only_the_reference_answer_is_right(skill: str) -> None:
    for seed in SEEDS:
        prompt, _, expected = evaluate.case(skill, seed, new_phrasing=False)
        request = prompt[-1]["content"]
        assert evaluate.is_right(skill, request, expected, expected)
        assert not evaluate.is_right(skill, request, expected, {"role": "assistant", "content": "Something else."})


@pytest.mark.parametrize("skill", ["tool_call", "tool_result", "two_tool_calls"])
def test_calls_use_offered_tools_with_their_parameters(skill: str) -> None:
    for seed in SEEDS:
        dialogue = corpus.evaluation_case(skill, seed)
        functions = {tool["function"]["name"]: tool["function"] for tool in dialogue.tools}
        calls = [call["function"] for message in dialogue.messages for call in message.get("tool_calls", ())]
        assert calls
        for call in calls:
            assert list(call["arguments"]) == functions[call["name"]]["parameters"]["required"]


def test_words_made_up_for_evaluation_are_never_made_up_for_training() -> None:
    training, evaluation = Rng(1), Rng(1, held_out=True)
    trained = {training.made_up() for _ in range(5000)}
    evaluated = {evaluation.made_up() for _ in range(5000)}
    assert all(map(is_held_out, evaluated))
    assert not any(map(is_held_out, trained))


def test_names_are_made_up_for_evaluation() -> None:
    for seed in SEEDS:
        answer = corpus.evaluation_case("recall_name", seed).messages[-1]["content"]
        name = answer.removeprefix("Your name is ").removesuffix(".")
        assert is_held_out(name.lower())


def test_training_names_are_known_or_made_up_for_training() -> None:
    rng = Rng(1)
    known = words.NAMES
    assert all(name in known or not is_held_out(name.lower()) for name in (rng.name() for _ in range(2000)))


def test_the_last_of_three_phrasings_is_kept_for_evaluation() -> None:
    training, evaluation = Rng(1), Rng(1, new_phrasing=True)
    phrasings = ("a", "b", "c")
    assert {training.phrase(phrasings) for _ in range(100)} == {"a", "b"}
    assert {evaluation.phrase(phrasings) for _ in range(100)} == {"c"}
    assert {evaluation.phrase(phrasings[:2]) for _ in range(100)} == {"a", "b"}
