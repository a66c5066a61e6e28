"""Print sample conversations of a model as Markdown."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from .dialogue import Message, dumps
from .evaluate import Chat, add_server_arguments, calls_of, open_chat
from .tools import signature

_WEATHER = signature("get_weather", "Get the weather.", {"location": {"type": "string"}})
_CUSTOMER = signature("find_customer", "Find a customer.", {"name": {"type": "string"}})
_MAGIC = signature("magic_function", "Apply a magic function to an input.", {"input": {"type": "integer"}})

_TOOL_RESULT = ">"
"""Marks a turn as what the tool returns."""


@dataclass(frozen=True)
class Script:
    """What is said to the model in one conversation."""

    title: str
    turns: tuple[str, ...]
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()


SCRIPTS = (
    Script(
        "Recall",
        (
            "Hello!",
            "My name is Zorblax.",
            "I live in Quimby.",
            "What is the capital of France?",
            "Where do I live?",
            "What is my name?",
            "What is my favorite color?",
        ),
    ),
    Script(
        "Repetition and counting",
        (
            'Repeat after me: "blue lantern zum zum"',
            "Say the word kiwi three times.",
            "Count from 3 to 15.",
            "Say the alphabet.",
        ),
    ),
    Script(
        "System prompt",
        ("Who are you?", "What is the secret word?", "Tell me a story about a fox."),
        system="You are a pirate named Barlo. The secret word is plinth.",
    ),
    Script(
        "Tools",
        (
            "What is the weather in San Francisco, CA?",
            ">It's sunny.",
            "What is the value of magic_function(3)? Use the tool.",
            ">5",
            "Thank you!",
        ),
        tools=(_WEATHER, _MAGIC),
    ),
    Script(
        "A tool that fails",
        ("Find the customer 李明.", ">Error: 李明 not found"),
        system="You are a helpful assistant.",
        tools=(_CUSTOMER,),
    ),
    Script(
        "JSON and extraction",
        (
            "Reply in JSON with keys name and age: Ana is 31.",
            "Tell me a joke about cats. Reply in JSON with keys setup and punchline.",
            "Context: Mira lives in Oslo. Tobin works as a baker.\n\nQuestion: What is the job of Tobin?",
            "What is 7 + 5?",
        ),
    ),
)


def shown(message: Message) -> str:
    """Return a message as a line of a transcript, tool calls in brackets."""
    calls = (f"[{name}({dumps(arguments)})]" for name, arguments in calls_of(message))
    return " ".join(filter(None, (f"{message['role']}:", message.get("content"), *calls)))


def next_message(turn: str, messages: list[Message]) -> Message:
    """Return the message that follows the given ones for a turn of a script."""
    if not turn.startswith(_TOOL_RESULT):
        return {"role": "user", "content": turn}
    calls = messages[-1].get("tool_calls") or [{"id": "none"}]
    return {"role": "tool", "tool_call_id": calls[0]["id"], "content": turn.removeprefix(_TOOL_RESULT)}


def converse(chat: Chat, script: Script) -> str:
    """Hold a conversation and return its transcript.

    Args:
        chat: The model.
        script: What is said to it.

    Returns:
        One message after the other, the system message included.
    """
    messages: list[Message] = [{"role": "system", "content": script.system}] if script.system else []
    for turn in script.turns:
        messages.append(next_message(turn, messages))
        messages.append(chat(messages, list(script.tools)))
    return "\n".join(map(shown, messages))


def main() -> None:
    """Print every sample conversation."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_server_arguments(parser)
    with open_chat(parser.parse_args()) as chat:
        for script in SCRIPTS:
            print(f"### {script.title}\n\n```text\n{converse(chat, script)}\n```\n")


if __name__ == "__main__":
    main()
