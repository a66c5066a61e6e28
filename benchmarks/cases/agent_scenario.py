"""What the agents of ../agents.py do, for any chat model of LangChain.

It runs in both environments: it imports neither binding.

Every turn of a conversation is a message of the user, an answer that calls a tool, the tool's result, and an answer. A
model with random weights cannot decide any of that. So the scenario does: how many tokens an answer has is set by
``max_tokens``, which tokens by a bias, and the calls are put into the answers on their way into the history.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.tools import tool
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langgraph.checkpoint.memory import InMemorySaver


@dataclass(frozen=True)
class Scenario:
    """How much is said, and in which words, each of which is a token.

    Attributes:
        words: What messages and results consist of.
        answer_token: Of which every answer consists, so that all models have the same history.
        answer_bias: Added to its logit.
        n_conversations: Threads of the graph.
        n_turns: Turns of each.
        n_system: Words of the system message.
        n_message: Words of every message of the user.
        n_call: Tokens that are generated before a tool is called.
        n_result: Words of every result of a tool.
        n_answer: Tokens of every answer.
    """

    words: Sequence[str]
    answer_token: int
    answer_bias: float
    n_conversations: int = 20
    n_turns: int = 5
    n_system: int = 300
    n_message: int = 24
    n_call: int = 16
    n_result: int = 120
    n_answer: int = 32

    def text(self, n_words: int, *seed: object) -> str:
        """Return random words, the same for the same seed."""
        return " ".join(random.Random(repr(seed)).choices(self.words, k=n_words))


class Tally:
    """Tokens that model calls reported, by turn.

    Attributes:
        prompt: Tokens of the prompts.
        cached: Those of them that were not evaluated, where the model says so.
    """

    def __init__(self, n_turns: int) -> None:
        self.prompt = [0] * n_turns
        self.cached = [0] * n_turns
        self._lock = threading.Lock()

    def add(self, turn: int, message: AIMessage, n_tokens: int) -> None:
        """Count a model call of a turn, which was to generate so many tokens."""
        reported = message.response_metadata.get("token_usage", {})  # ChatLlamaCpp's place for it
        usage = message.usage_metadata
        generated = reported.get("completion_tokens") if usage is None else usage["output_tokens"]
        assert generated == n_tokens, f"{generated} tokens were generated instead of {n_tokens}"
        prompt = reported["prompt_tokens"] if usage is None else usage["input_tokens"]
        cached = 0 if usage is None else usage.get("input_token_details", {}).get("cache_read", 0)
        with self._lock:
            self.prompt[turn] += prompt
            self.cached[turn] += cached


class _Decisions(AgentMiddleware[Any, Any, Any]):
    """Decides what the model cannot: how long its answers are, and that each message leads to one call of a tool."""

    def __init__(self, scenario: Scenario, tally: Tally) -> None:
        super().__init__()
        self._scenario = scenario
        self._tally = tally

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> AIMessage:
        """Let the model answer, and turn the first answer of a turn into a call."""
        calls = isinstance(request.messages[-1], HumanMessage)
        n_tokens = self._scenario.n_call if calls else self._scenario.n_answer
        settings = {"max_tokens": n_tokens, "logit_bias": {self._scenario.answer_token: self._scenario.answer_bias}}
        response = handler(request.override(model_settings=settings))
        (message,) = response.result
        assert isinstance(message, AIMessage)
        turn = sum(isinstance(each, HumanMessage) for each in request.messages) - 1
        self._tally.add(turn, message, n_tokens)
        call = ToolCall(
            name=("search_documents", "look_up_customer")[turn % 2],
            args={"query": str(request.messages[-1].content)[:40]},
            id=f"call{turn:05}",
        )
        return AIMessage(content=message.content, tool_calls=[call] if calls else [])


def run_agents(model: BaseChatModel, scenario: Scenario, run: str, *, at_once: bool = False) -> dict[str, Any]:
    """Hold all conversations, whose turns alternate; return the seconds it took, and tokens by turn.

    Args:
        model: The chat model.
        scenario: What is said.
        run: Makes the conversations different from those of another run.
        at_once: Take a turn of all conversations at once, each on a thread of its own, instead of one after the other.
    """
    tally = Tally(scenario.n_turns)
    agent = create_agent(
        model,
        _tools(scenario),
        system_prompt=scenario.text(scenario.n_system, "system"),
        middleware=[_Decisions(scenario, tally)],
        checkpointer=InMemorySaver(),
    )

    def take_turn(conversation: int, turn: int) -> None:
        message = scenario.text(scenario.n_message, run, conversation, turn)
        state = agent.invoke({"messages": [HumanMessage(message)]}, _config(run, conversation))
        assert state["messages"][-4].content == message
        assert len(state["messages"]) == 4 * (turn + 1), "a conversation lost something, or has what is not its own"

    n = scenario.n_conversations
    with ThreadPoolExecutor(n if at_once else 1) as pool:
        start = time.perf_counter()
        for turn in range(scenario.n_turns):
            list(pool.map(take_turn, range(n), [turn] * n))
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "prompt": tally.prompt, "cached": tally.cached}


def _config(run: str, conversation: int) -> Any:
    return {"configurable": {"thread_id": f"{run}-{conversation}"}}


def _tools(scenario: Scenario) -> list[Any]:
    @tool
    def search_documents(query: str) -> str:
        """Search all documents, and return what they say about something."""
        return scenario.text(scenario.n_result, query)

    @tool
    def look_up_customer(query: str) -> str:
        """Look up a customer by name or number, and return what is known of the orders."""
        return scenario.text(scenario.n_result, query)

    return [search_documents, look_up_customer]
