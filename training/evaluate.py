"""Measure a chat model on held-out cases of every skill, through llama-server or any Python callable."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .corpus import SKILLS, evaluation_case
from .dialogue import Message, dumps

Chat = Callable[[list[Message], list[dict[str, Any]]], Message]
"""Takes messages and tools in the OpenAI format and returns the assistant's message."""

RELEASED_MODEL = Path(__file__).resolve().parents[1] / "cyllama" / "models" / "tiny-chat.gguf"
FIRST_SEED = 1_000_000
"""Seed of the first case that is measured."""

_CONTEXT = 2048
_MAX_TOKENS = 600
_STARTUP_SECONDS = 60.0
_WRONG_ANSWERS_SHOWN = 6


class Case(NamedTuple):
    """A prompt, the tools offered with it and the reference answer."""

    prompt: list[Message]
    tools: list[dict[str, Any]]
    expected: Message


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """Return the names and arguments of a message's tool calls."""
    calls: list[tuple[str, Any]] = []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = f"invalid JSON: {arguments}"
        calls.append((call["function"]["name"], arguments))
    return calls


def is_story(reply: str, request: str) -> bool:
    """Tell whether a reply is a story of 60 to 200 words about what was asked for."""
    subject = request.rpartition("story about ")[2].rstrip(".?").split()[-1]
    return 60 <= len(reply.split()) <= 200 and reply.count(subject) >= 2 and reply.endswith((".", '"'))


def is_right(skill: str, request: str, expected: Message, actual: Message) -> bool:
    """Compare an answer with the reference: calls and JSON by value, stories by form, the rest verbatim.

    Args:
        skill: The skill that is asked for.
        request: Text of the last message of the prompt.
        expected: The reference answer.
        actual: The model's answer.

    Returns:
        Whether the answer counts as right.
    """
    reply = (actual.get("content") or "").strip()
    if skill == "story":
        return is_story(reply, request)
    if calls_of(expected) or calls_of(actual):
        return calls_of(expected) == calls_of(actual)
    if skill == "json_reply":
        try:
            return json.loads(reply) == json.loads(expected["content"])
        except ValueError:
            return False
    return reply == expected["content"]


def case(skill: str, seed: int, new_phrasing: bool) -> Case:
    """Return a held-out case of a skill; see :func:`corpus.evaluation_case` for the arguments."""
    dialogue = evaluation_case(skill, seed, new_phrasing=new_phrasing)
    messages = dialogue.messages
    last = len(messages) - 1
    if skill == "two_tool_calls":
        # The calls are what this skill is about; the sentence about their results belongs to "tool_result".
        last = next(index for index, message in enumerate(messages) if message.get("tool_calls"))
    return Case(messages[:last], dialogue.tools, messages[last])


def measure(chat: Chat, skill: str, cases: int, new_phrasing: bool) -> tuple[float, list[dict[str, Any]]]:
    """Ask for all cases of a skill.

    Args:
        chat: The model.
        skill: The skill to ask for.
        cases: Number of cases.
        new_phrasing: Use the phrasings that training never draws.

    Returns:
        The share of right answers, and the wrong ones with their requests and references.
    """
    wrong: list[dict[str, Any]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + cases):
        prompt, tools, expected = case(skill, seed, new_phrasing)
        request = prompt[-1]["content"]
        actual = chat(prompt, tools)
        if not is_right(skill, request, expected, actual):
            wrong.append(
                {
                    "request": request,
                    "expected": calls_of(expected) or expected["content"],
                    "actual": calls_of(actual) or actual.get("content"),
                }
            )
    return round(1 - len(wrong) / cases, 3), wrong


def evaluate(chat: Chat, cases: int, skills: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure skills with known and with new phrasings, and print the accuracy of each.

    Args:
        chat: The model.
        cases: Number of cases of each skill and kind of phrasing.
        skills: The skills to measure, all of them by default.

    Returns:
        For every skill, "accuracy" (phrasings of the training corpus), "accuracy_new_phrasing" (the ones kept for
        evaluation) and a few of the wrong answers. Names and words that are made up are new to the model in both.
    """
    report: dict[str, Any] = {}
    for skill in skills or SKILLS:
        known, wrong = measure(chat, skill, cases, new_phrasing=False)
        new, wrong_new = measure(chat, skill, cases, new_phrasing=True)
        print(f"{skill:16} {known:.3f} {new:.3f}", flush=True)
        report[skill] = {
            "cases": cases,
            "accuracy": known,
            "accuracy_new_phrasing": new,
            "examples_of_wrong_answers": (wrong + wrong_new)[:_WRONG_ANSWERS_SHOWN],
        }
    return report


def _with_json_arguments(message: Message) -> Message:
    """Return a message whose calls have their arguments as JSON text, as the OpenAI format wants it."""
    if not message.get("tool_calls"):
        return message
    calls: list[dict[str, Any]] = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else dumps(arguments)
        calls.append(call | {"function": call["function"] | {"arguments": text}})
    return message | {"tool_calls": calls}


def http_chat(url: str) -> Chat:
    """Return a chat function that asks the OpenAI-compatible server at a URL, at temperature 0."""

    def chat(messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        body: dict[str, Any] = {
            "messages": [_with_json_arguments(message) for message in messages],
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
        }
        if tools:
            body["tools"] = tools
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)["choices"][0]["message"]
        except urllib.error.HTTPError as error:
            # llama-server answers so to output that it cannot parse: a wrong answer, no reason to stop.
            return {"role": "assistant", "content": f"HTTP {error.code}: {error.read().decode(errors='replace')}"}

    return chat


def _free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the server at a URL has loaded its model; raise if its process ends or takes too long."""
    deadline = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/health"):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"the server was not ready after {_STARTUP_SECONDS:.0f} seconds")


@contextmanager
def serve(server: str, model: Path) -> Iterator[str]:
    """Run llama-server on a free port until the context is left.

    Args:
        server: Path or name of the executable.
        model: The GGUF file to serve.

    Yields:
        The URL of the server, which is ready.
    """
    port = _free_port()
    command = [server, "-m", str(model), "--jinja", "--port", str(port), "-c", str(_CONTEXT), "-np", "1", "-t", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that :func:`open_chat` reads to a parser."""
    parser.add_argument("--model", type=Path, default=RELEASED_MODEL, help="GGUF file, by default the released one")
    parser.add_argument("--server", default="llama-server", help="path of llama.cpp's server")
    parser.add_argument("--url", help="use this running server instead")


@contextmanager
def open_chat(args: argparse.Namespace) -> Iterator[Chat]:
    """Yield a chat function for the server that the command line names, running it meanwhile if need be."""
    if args.url:
        yield http_chat(args.url)
    else:
        with serve(args.server, args.model) as url:
            yield http_chat(url)


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_server_arguments(parser)
    parser.add_argument("--cases", type=int, default=100, help="cases of each skill and kind of phrasing")
    parser.add_argument("--skill", action="append", choices=list(SKILLS), help="only this skill; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("eval.json"), help="report to write")
    args = parser.parse_args()
    with open_chat(args) as chat:
        report = evaluate(chat, args.cases, args.skill)
    args.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
