"""Ten alternating conversations through ``RunnableWithMessageHistory``: each one's KV cache stays warm.

LangChain keeps the histories and names the conversation in the config of every call. The model goes on from what it
holds of this conversation, and evaluates only what is new.

Many programs use this class. LangChain has deprecated it in favour of LangGraph's checkpointers: see agent.py.

Run it with ``python examples/langchain/message_histories.py [model.gguf]``.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_cyllama import ChatCyllama

NAMES = ("Ada", "Ben", "Mia", "Tom", "Zoe", "Max", "Eva", "Leo", "Ida", "Sam")
TURNS = ("My name is {}.", "What is the capital of France?", "What is my name?")


def main(model_path: str | None = None) -> None:
    warnings.simplefilter("ignore", LangChainDeprecationWarning)
    histories: dict[str, InMemoryChatMessageHistory] = defaultdict(InMemoryChatMessageHistory)
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a helpful assistant."), MessagesPlaceholder("history"), ("human", "{text}")]
    )
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=64) as model:
        chat = RunnableWithMessageHistory(
            prompt | model,
            lambda session_id: histories[session_id],
            input_messages_key="text",
            history_messages_key="history",
        )
        for turn in TURNS:
            for name in NAMES:
                answer = chat.invoke({"text": turn.format(name)}, {"configurable": {"session_id": name.lower()}})
                total = answer.usage_metadata["input_tokens"]
                known = answer.usage_metadata["input_token_details"]["cache_read"]
                print(f"{name}: {answer.text} ({known} of {total} tokens were known)")

        stats = model.client.stats
        print(f"tokens of all prompts: {stats.prompt_tokens_reused} known, {stats.prompt_tokens_evaluated} evaluated")

        # Ending a conversation gives its memory back. If it goes on later, it is evaluated again.
        model.reset_session("ada")
        print(f"sessions: {', '.join(sorted(model.client.sessions))}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
