"""What the live page shows of the engine: numbers and names, and nothing of prompts and answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from cyllama import SessionStats, Stats

from .models import LoadedModel, ServedModel
from .sessions import KnownSession
from .tenants import Tenant

MOST_SESSIONS = 100
"""How many sessions of a model are described; those that answer come first, and then the latest."""

_PLACES = {"resident": "context", "swapped": "host", "dropped": "none"}


def state_of(models: Iterable[ServedModel], viewer: Tenant | None) -> dict[str, Any]:
    """Return the state of models, as a tenant may see it.

    Args:
        models: The models.
        viewer: Who asks; `None` for an operator, who sees the sessions of all tenants, by their ids.
    """
    return {
        "object": "live.state",
        "time": time.time(),
        "scope": "all" if viewer is None else "own",
        "models": [_model_state(model, viewer) for model in models],
    }


def _model_state(model: ServedModel, viewer: Tenant | None) -> dict[str, Any]:
    state: dict[str, Any] = {"name": model.name, "loaded": model.loaded is not None, "n_parallel": model.n_parallel}
    if model.loaded is not None:
        state |= _loaded_state(model.loaded, viewer)
    return state


def _loaded_state(model: LoadedModel, viewer: Tenant | None) -> dict[str, Any]:
    stats = model.llm.stats
    seen = [
        (session, known)
        for session in stats.sessions
        if (known := model.sessions.find(session.name)) is not None and viewer in (None, known.tenant)
    ]
    seen.sort(key=lambda pair: (pair[0].running, pair[0].waiting, pair[1].last_used), reverse=True)
    return {
        **_totals(model, stats, [session for session, _ in seen], viewer),
        "n_sessions": len(seen),
        "sessions": [_session_state(*pair, viewer) for pair in seen[:MOST_SESSIONS]],
    }


def _totals(model: LoadedModel, stats: Stats, seen: list[SessionStats], viewer: Tenant | None) -> dict[str, Any]:
    """Return what concerns the whole model; for a tenant, as far as it is its own."""
    cells = {"total": stats.kv_cells, "used": stats.kv_cells_used, "shared": stats.kv_cells_shared}
    if viewer is None:
        return {
            "running": stats.running,
            "waiting": stats.waiting,
            "cells": cells,
            "counters": {
                "generated": stats.tokens_generated,
                "evaluated": stats.prompt_tokens_evaluated,
                "reused": stats.prompt_tokens_reused,
            },
            "memory": {
                "weights": sum(stats.weights_bytes.values()),
                "kv_cache": sum(stats.kv_cache_bytes.values()),
                "compute": sum(stats.compute_bytes.values()),
                "host": stats.host_bytes,
            },
        }
    used, alone = round(sum(each.cell_share for each in seen)), sum(each.cells for each in seen)
    return {
        "running": sum(each.running for each in seen),
        "waiting": sum(each.waiting for each in seen),
        "cells": cells | {"used": used, "shared": used - alone},
        "counters": vars(model.activity.of(viewer)),
        "memory": None,
    }


def _session_state(session: SessionStats, known: KnownSession, viewer: Tenant | None) -> dict[str, Any]:
    own = viewer is not None or known.tenant.id == ""
    return {
        "id": known.id,
        "conversation": known.conversation if own else None,
        "tenant": None if own else known.tenant.id[:6],
        "tokens": session.tokens,
        "place": _PLACES[session.place],
        "saved": known.saved if own else known.saved is not None,
        "cells": session.cells,
        "shared_cells": session.shared_cells,
        "running": session.running,
        "waiting": session.waiting,
        "requests": known.n_requests,
        "last_used_at": known.last_used,
    }
