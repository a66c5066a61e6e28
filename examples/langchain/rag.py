"""Answers from documents: embeddings, a vector store, a reranker and a chat model, all from one loaded model.

The embedded tiny-chat serves for all of it. For documents of your own, give the embeddings and the reranker models that
were trained for it: ``CyllamaEmbeddings(model_path="embedding-model.gguf")``.

Run it with ``python examples/langchain/rag.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_cyllama import ChatCyllama, CyllamaEmbeddings, CyllamaReranker

FACTS = (
    "The bakery opens at 7:30.",
    "The bridge costs 120 euros.",
    "Ada lives in London.",
    "Ben works as a baker.",
    "Mia was born in 1984.",
    "The castle belongs to Tom.",
    "The boat is blue.",
    "Emma has a red umbrella.",
    "Noah is married to Lily.",
)
QUESTIONS = (
    "When does the bakery open?",
    "What colour is the boat?",
    "When was Mia born?",
    "Who owns the castle?",
    "What does Emma have?",
)


def join(documents: list[Document]) -> str:
    return " ".join(document.page_content for document in documents)


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=64) as model:
        # All texts are embedded in as few passes as possible.
        store = InMemoryVectorStore.from_texts(list(FACTS), CyllamaEmbeddings(llm=model.client))
        stats = model.client.stats
        print(f"texts embedded: {stats.texts_embedded}, in passes over the model: {stats.embedding_passes}")

        retriever = store.as_retriever(search_kwargs={"k": 3})
        prompt = ChatPromptTemplate.from_template("Context: {context}\n\nQuestion: {question}")
        chain = {"context": retriever | join, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
        for question in QUESTIONS:
            print(f"{question} {chain.invoke(question)}")

        # One call for many questions: their answers are generated together.
        print(f"together: {chain.batch(list(QUESTIONS)) == [chain.invoke(question) for question in QUESTIONS]}")

        # A reranker orders the texts that were found. Without a model trained to rank, it compares embeddings.
        reranker = CyllamaReranker(llm=model.client, top_n=1)
        (best,) = reranker.compress_documents(retriever.invoke(QUESTIONS[0]), QUESTIONS[0])
        print(f"best: {best.page_content} ({best.metadata['relevance_score']:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:2])
