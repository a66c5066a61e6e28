"""Which conversation a call of LangChain belongs to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from cyllama import LLM, SessionLease, SessionPool

MAX_HISTORIES = 8
"""Most idle histories that are kept of one conversation at one place of a graph."""


class SessionKey(NamedTuple):
    """The conversation that a call belongs to.

    Attributes:
        id: What the caller calls it.
        namespace: The place in a graph that the call comes from, the same at every step.
    """

    id: str
    namespace: str = ""


def find_session(session_id: object = None, config: RunnableConfig | None = None) -> SessionKey | None:
    """Return the conversation that a call belongs to, if any.

    It is an explicit `session_id`, else `configurable.session_id` (`RunnableWithMessageHistory`), else
    `configurable.thread_id` (LangGraph), of the call's own config or else of the one around it.

    >>> find_session(config={"configurable": {"thread_id": "ada", "checkpoint_ns": "agent:6f1c"}})
    SessionKey(id='ada', namespace='agent')

    Args:
        session_id: What the caller named explicitly.
        config: The config that the call was given. That of the chain or the graph node around it is found without it.
    """
    configurables = [(c or {}).get("configurable") or {} for c in (config, var_child_runnable_config.get())]
    namespace = next((str(c["checkpoint_ns"]) for c in configurables if c.get("checkpoint_ns")), "")
    named = (c.get(name) for c in configurables for name in ("session_id", "thread_id"))
    found = next((value for value in itertools.chain((session_id,), named) if value not in (None, "")), None)
    return None if found is None else SessionKey(str(found), stable_namespace(namespace))


def stable_namespace(checkpoint_ns: str) -> str:
    """Return a namespace of LangGraph without the ids of tasks, which are new at every step.

    >>> stable_namespace("supervisor:6f1c|researcher:09ab")
    'supervisor|researcher'
    """
    return "|".join(part.partition(":")[0] for part in checkpoint_ns.split("|") if not part.isdigit())


def lease_session(
    llm: LLM,
    key: SessionKey | None,
    history: str | Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    exclusive: bool,
) -> SessionLease:
    """Return a lease of the session that a call uses; without a session where it belongs to no conversation.

    Args:
        llm: The model.
        key: The conversation.
        history: The messages of the call, or its prompt.
        options: The options of the call, by cyllama's names.
        exclusive: Whether the model holds one conversation at a time.
    """
    pool = SessionPool(llm, max_idle=MAX_HISTORIES, exclusive=exclusive)
    if key is None:
        return pool.stateless()
    return pool.lease(history, key.id, namespace=key.namespace, options=options)
