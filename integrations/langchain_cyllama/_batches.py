"""Batches of chats: answered in parallel, and cancelled together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list, get_executor_for_config

from ._calls import CALL, Call

T = TypeVar("T")


class BatchMethods:
    """The methods of a chat model that answer a batch of chats."""

    @abstractmethod
    def _call(self, kwargs: Mapping[str, Any], config: RunnableConfig | None) -> Call:
        """Return the `Call` of arguments and a config."""

    if not TYPE_CHECKING:  # their types are LangChain's

        def batch(self, inputs, config=None, *, return_exceptions=False, **kwargs):
            """Answer chats in parallel, and return the answers in the order of the inputs: see `Runnable.batch`.

            >>> from langchain_cyllama import ChatCyllama
            >>> questions = [f"What is the capital of {country}?" for country in ("France", "Italy")]
            >>> [answer.text for answer in ChatCyllama(temperature=0).batch(questions)]
            ['The capital of France is Paris.', 'The capital of Italy is Rome.']
            """
            if len(inputs) < 2:
                return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
            with self._answering(inputs, config, return_exceptions, kwargs) as futures:
                return [future.result()[1] for future in futures]

        def batch_as_completed(self, inputs, config=None, *, return_exceptions=False, **kwargs):
            """Answer chats in parallel, and yield each answer with its index as soon as it is complete.

            The arguments are those of `Runnable.batch_as_completed`.

            >>> from langchain_cyllama import ChatCyllama
            >>> questions = [f"What is the capital of {country}?" for country in ("France", "Italy")]
            >>> answers = dict(ChatCyllama(temperature=0).batch_as_completed(questions))
            >>> answers[1].text
            'The capital of Italy is Rome.'
            """
            if inputs:
                with self._answering(inputs, config, return_exceptions, kwargs) as futures:
                    yield from _as_completed(futures)

    def _answering(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: dict[str, Any],
    ) -> AbstractContextManager[list[Future[tuple[int, Any]]]]:
        """Answer chats in parallel. The end of the block cancels those that are not answered."""
        configs = _side_by_side(config, len(inputs))
        calls = [self._call(kwargs, config) for config in configs]
        model: Any = self

        def answer_one(i: int) -> Any:
            try:
                return model.invoke(inputs[i], configs[i], **{**kwargs, CALL: calls[i]})
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        return _in_threads(configs[0], calls, answer_one)


def _side_by_side(config: RunnableConfig | Sequence[RunnableConfig] | None, n: int) -> list[RunnableConfig]:
    """Return configs with a thread for each of `n` calls, so that the model decodes all of them together."""
    configs = get_config_list(config, n)
    if configs and configs[0].get("max_concurrency") is None:
        return [cast("RunnableConfig", {**each, "max_concurrency": n}) for each in configs]
    return configs


@contextmanager
def _in_threads(
    config: RunnableConfig, calls: Sequence[Call], answer: Callable[[int], T]
) -> Iterator[list[Future[tuple[int, T]]]]:
    """Answer calls in a thread each. The end of the block cancels those that are not answered.

    LangChain's own batches wait for every call that has begun, even after Ctrl-C.

    Args:
        config: Its `max_concurrency` is how many calls run at once.
        calls: The calls.
        answer: Answers the call of an index.
    """
    futures: list[Future[tuple[int, T]]] = []
    with get_executor_for_config(config) as executor:
        try:
            for i in range(len(calls)):
                futures.append(executor.submit(lambda i: (i, answer(i)), i))
            yield futures
        finally:
            for future in futures:
                future.cancel()
            for call in calls:  # also a call that a thread has begun before its future was in the list
                call.cancel()


def _as_completed(futures: Sequence[Future[T]]) -> Iterator[T]:
    """Yield results in the order in which they are complete."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
