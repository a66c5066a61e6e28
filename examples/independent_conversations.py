"""Several conversations over one model, none of which knows anything of another.

A conversation is the list of its messages, which you keep. Every call evaluates the whole of its prompt in a cleared KV
cache, so that the model knows what is in this prompt and nothing else: conversations may be interleaved in any order.
``reset_context()`` goes one step further and drops the context itself, with the memory that it occupied.

Run it with ``python examples/independent_conversations.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from cyllama import LLM, Message


class Conversation:
    """A history, and the model that continues it."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self.messages: list[Message] = []

    def say(self, text: str) -> str:
        """Add a message and the model's answer to it."""
        self.messages.append(Message(role="user", content=text))
        answer = self._llm(self._llm.render(self.messages)).text
        self.messages.append(Message(role="assistant", content=answer))
        return answer


def main(model_path: str | None = None) -> None:
    with LLM(model_path, temperature=0, max_tokens=64) as llm:
        # Two conversations alternate in one context.
        ada, ben = Conversation(llm), Conversation(llm)
        ada.say("My name is Zorblax.")
        ben.say("My name is Quimby.")
        print(f"ada: {ada.say('What is my name?')}")
        print(f"ben: {ben.say('What is my name?')}")
        print(f"contexts created: {llm.stats.contexts_created}")

        # Without its history, the same question gets the answer of a stranger.
        print(f"stranger: {Conversation(llm).say('What is my name?')}")
        print(f"prompt tokens reused from earlier calls: {llm.stats.prompt_tokens_reused}")

        # Dropping the context between two conversations changes no answer; it costs creating a new one.
        answers = []
        for name in ("Zorblax", "Quimby"):
            llm.reset_context()
            print(f"reset: n_ctx={llm.stats.n_ctx}")
            conversation = Conversation(llm)
            conversation.say(f"My name is {name}.")
            answers.append(conversation.say("What is my name?"))
        print(f"contexts created: {llm.stats.contexts_created}")
        same = answers == [ada.messages[-1].content, ben.messages[-1].content]
        print(f"same answers as before: {same}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
