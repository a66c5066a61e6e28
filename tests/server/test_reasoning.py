"""A model that reasons before it answers: what it thinks is apart from what it says, in every API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from ..support.families import FAMILIES
from ..support.random_models import write_random_model
from ..support.server import ServerProcess

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
#: A template that lets the model reason unless it is told otherwise.
THINKING = FAMILIES["qwen"].template.replace(
    "</think>\\n\\n' }}\n    {%- endif %}", "</think>\\n\\n' }}\n    {%- else %}{{ '<think>\\n' }}{%- endif %}"
)
BUDGET = {"reasoning_budget": 8}  # a random model would never come to the end of it


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("thinker")
    path = write_random_model(folder / "thinker.gguf", "llama", chat_template=THINKING, endless=True)
    with ServerProcess("--model", f"thinker={path}", "--option", "temperature=0") as server:
        yield server


def test_a_chat_has_reasoning_beside_its_content(thinker: ServerProcess):
    with openai.OpenAI(base_url=thinker.v1, api_key="any") as client:
        options: Any = {"model": "thinker", "messages": QUESTION, "max_tokens": 24, "extra_body": BUDGET}
        message = client.chat.completions.create(**options).choices[0].message
        reasoning = (message.model_extra or {})["reasoning_content"]
        assert reasoning
        assert message.content
        assert "think>" not in reasoning + message.content
        pieces: list[tuple[str, str]] = []
        for chunk in client.chat.completions.create(**options, stream=True):
            delta = chunk.choices[0].delta
            pieces.append(((delta.model_extra or {}).get("reasoning_content") or "", delta.content or ""))
        assert "".join(thought for thought, _ in pieces) == reasoning
        assert "".join(said for _, said in pieces) == message.content
        last_thought = max(i for i, (thought, _) in enumerate(pieces) if thought)
        assert not any(said for _, said in pieces[:last_thought]), "it thinks first"

        silent = client.chat.completions.create(**options | {"extra_body": {"enable_thinking": False}})
        assert "reasoning_content" not in (silent.choices[0].message.model_extra or {})


def test_past_reasoning_is_taken_back_with_the_history(thinker: ServerProcess):
    with openai.OpenAI(base_url=thinker.v1, api_key="any") as client:
        options: Any = {"model": "thinker", "max_tokens": 24, "extra_body": BUDGET}
        first = client.chat.completions.create(messages=QUESTION, **options)
        history: Any = [*QUESTION, first.choices[0].message.model_dump(exclude_none=True)]
        second = client.chat.completions.create(messages=[*history, *QUESTION], **options)
        assert second.choices[0].message.content
        assert first.usage is not None
        assert second.usage is not None
        assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_anthropics_api_has_blocks_of_thinking_where_that_is_asked_for(thinker: ServerProcess):
    with anthropic.Anthropic(base_url=thinker.url, api_key="any") as client:
        options: Any = {"model": "thinker", "max_tokens": 64, "messages": QUESTION}
        thinking: Any = {"type": "enabled", "budget_tokens": 8}
        message = client.messages.create(**options, thinking=thinking)
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert {block.type for block in client.messages.create(**options).content} == {"text"}
        kinds = [event.content_block.type for event in client.messages.create(**options, thinking=thinking, stream=True)
                 if event.type == "content_block_start"]  # fmt: skip
        assert kinds == ["thinking", "text"]


def test_the_responses_api_has_an_item_of_reasoning(thinker: ServerProcess):
    with openai.OpenAI(base_url=thinker.v1, api_key="any") as client:
        response = client.responses.create(
            model="thinker", input="What is the capital of France?", max_output_tokens=24, extra_body=BUDGET
        )
        kinds = [item.type for item in response.output]
        assert kinds[0] == "reasoning"
