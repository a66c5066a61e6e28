"""Dialogues are rendered as llama.cpp renders them: ChatML, tools in the Hermes style, JSON without escapes."""

from __future__ import annotations

from training.dialogue import Dialogue
from training.tokenizer import Renderer, train_tokenizer


def test_a_call_and_its_result_are_rendered() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"name": "李明", "all": True}}}
    parameters = {"properties": {"name": {"type": "string"}, "unit": {"enum": ["a", "b"]}}}
    conversation = Dialogue(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Find 李明."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "<none>"},
            {"role": "assistant", "content": "Nobody."},
        ],
        tools=[{"type": "function", "function": {"name": "find", "description": "Find.", "parameters": parameters}}],
    )
    assert Renderer()(conversation) == (
        "<|im_start|>system\nBe brief.\n\n"
        'Call a tool when it helps: <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>\n<tools>\n'
        '{"name": "find", "description": "Find.", "parameters": {"name": "string", "unit": ["a", "b"]}}\n'
        "</tools><|im_end|>\n"
        "<|im_start|>user\nFind 李明.<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "find", "arguments": {"name": "李明", "all": true}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n<none>\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nNobody.<|im_end|>\n"
    )


def test_a_tokenizer_round_trips_any_text() -> None:
    trained = train_tokenizer(vocab=300, seed=1, count=20)
    text = "Zorblax, 1234 李明 🎉\n\tжди"
    assert trained.decode(trained.encode(text).ids) == text
    digits = trained.encode("1234").tokens
    assert digits == list("1234")
    assert trained.encode("<|im_end|>").tokens == ["<|im_end|>"]
