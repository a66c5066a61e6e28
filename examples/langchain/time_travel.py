"""Back to an earlier checkpoint of a LangGraph thread: the conversation goes another way from there, and stays warm.

Checkpoints hold the messages, and the model holds their KV cache, both under the ``thread_id``. Whatever a graph does
to its messages: as far as they begin like those that are held, they are not evaluated again, and the answers depend on
nothing but the messages.

Run it with ``python examples/langchain/time_travel.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_cyllama import ChatCyllama


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=64) as model:

        def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
            return {"messages": [model.invoke(state["messages"])]}

        builder = StateGraph(MessagesState)
        builder.add_node("answer", answer)
        builder.add_edge(START, "answer")
        graph = builder.compile(checkpointer=InMemorySaver())

        def say(text: str, config: RunnableConfig) -> None:
            message = graph.invoke({"messages": [HumanMessage(text)]}, config)["messages"][-1]
            usage = message.usage_metadata
            known = usage["input_token_details"]["cache_read"]
            print(f"{text} {message.text} ({known} of {usage['input_tokens']} tokens were known)")

        thread: RunnableConfig = {"configurable": {"thread_id": "ada"}}
        say("My name is Ada.", thread)
        earlier = graph.get_state(thread).config  # the checkpoint to which we will return
        say("I live in London.", thread)
        say("Where do I live?", thread)
        latest = graph.get_state(thread).config

        print("- back to the first turn:")
        say("I live in Oslo.", earlier)
        say("Where do I live?", thread)
        say("What is my name?", thread)

        print("- and on with the first branch:")
        say("Where do I live?", latest)


if __name__ == "__main__":
    main(*sys.argv[1:2])
