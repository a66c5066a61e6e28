"""The models of a server: loaded on demand, and unloaded where the memory is for others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cyllama import LLM, ModelConfig, SessionPool
from cyllama.engine.hardware import available_memory, physical_cores
from cyllama.models import resolve_model_path
from cyllama.models.parts import part_paths
from cyllama.models.projectors import resolve_projector

from .activity import Activity
from .errors import ApiError, too_busy
from .sessions import KnownSessions
from .settings import ServerSettings
from .tenants import Tenant

logger = logging.getLogger("cyllama.server")

PARALLEL_PER_CORE, MOST_PARALLEL = 8, 64
"""How many generations a model decodes together: on CPUs, a step of 16 tokens takes far less than 16 steps of one."""

PARALLEL_BYTES = 2**28
"""Bytes of free memory for each of them. Models with a recurrent state allocate one for each at once."""


@dataclass(eq=False)
class LoadedModel:
    """A model while it is loaded.

    Attributes:
        name: What clients call it.
        llm: The model.
        pool: Finds the session of a request.
        sessions: The sessions that requests have used.
        activity: What tenants have had of it.
        n_weights: Bytes of its weights, and of those of its draft model and its projector.
    """

    name: str
    llm: LLM
    pool: SessionPool
    sessions: KnownSessions
    activity: Activity
    n_weights: int

    @property
    def n_bytes(self) -> int:
        """Bytes of its weights, of its contexts, and of its sessions and their images in host memory."""
        stats = self.llm.stats
        contexts = (stats.kv_cache_bytes, stats.compute_bytes, stats.draft_bytes)
        n_host = stats.host_bytes + stats.image_bytes
        return self.n_weights + n_host + sum(n for each in contexts for n in each.values())


@dataclass(eq=False)
class ServedModel:
    """A model that may be loaded.

    Attributes:
        name: What clients call it.
        path: Its file, or its name on the hub.
        options: What it is loaded with.
        created: When the server began to serve it, in seconds since 1970.
        loaded: The model, while it is loaded.
        places: How many requests of each tenant run or wait now.
        n_uses: How many requests need that it stays loaded.
        last_used: When the last request began or ended, on the clock `time.monotonic`.
        n_more: Bytes that it took beside its weights when it was unloaded.
        mean_seconds: How long its requests take, on average; later ones count more.
    """

    name: str
    path: str | None
    options: dict[str, Any]
    created: int = field(default_factory=lambda: int(time.time()))
    loaded: LoadedModel | None = None
    places: Counter[str] = field(default_factory=Counter[str])
    n_uses: int = 0
    last_used: float = 0.0
    n_more: int = 0
    mean_seconds: float = 1.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def n_places(self) -> int:
        """How many requests run or wait now."""
        return self.places.total()

    @property
    def n_parallel(self) -> int:
        """How many requests run together; more wait."""
        return self.options["n_parallel"]


class Models:
    """All models of a server.

    Args:
        settings: Which ones, and how much memory they may take.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._max_queue = settings.max_queue
        self._budget = None if settings.memory_budget_mb is None else settings.memory_budget_mb * 2**20
        self._any_model = settings.any_model
        self.served = {
            name: ServedModel(name, path, {"n_parallel": default_parallel()} | settings.options_of(name))
            for name, path in settings.models.items()
        }
        self._room = asyncio.Lock()
        self._trimming: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> dict[str, LLM]:
        """The models that are loaded, by name."""
        return {name: each.loaded.llm for name, each in self.served.items() if each.loaded is not None}

    @property
    def in_progress(self) -> dict[str, int]:
        """How many requests of each model run or wait now, by its name."""
        return {name: each.n_places for name, each in self.served.items()}

    def find(self, name: str | None) -> ServedModel:
        """Return the model of a name; the first one where a request names none.

        Raises:
            ApiError: There is no such model.
        """
        first = next(iter(self.served.values()))
        found = first if name is None else self.served.get(name, first if self._any_model else None)
        if found is None:
            names = ", ".join(self.served)
            raise ApiError(
                404, f"there is no model {name!r:.80}: there are {names}", code="model_not_found", param="model"
            )
        return found

    @contextmanager
    def place(self, name: str | None, tenant: Tenant) -> Iterator[None]:
        """Take a place in the queue of a model until the `with` block ends.

        Args:
            name: What clients call it; `None` for the first one.
            tenant: Who takes it. In a full queue, one with less than an equal part of it may still wait.

        Raises:
            ApiError: There is no such model, or too many requests wait for it.
        """
        model = self.find(name)
        self._check_queue(model, tenant.id)
        model.places[tenant.id] += 1
        begin = time.monotonic()
        try:
            yield
        finally:
            model.places[tenant.id] -= 1
            model.places += Counter()  # without those that have none
            model.mean_seconds += 0.1 * (time.monotonic() - begin - model.mean_seconds)

    @asynccontextmanager
    async def keep_loaded(self, name: str | None) -> AsyncIterator[LoadedModel]:
        """Load a model if it is not loaded, and keep it loaded until the `async with` block ends.

        Args:
            name: What clients call it; `None` for the first one.

        Raises:
            ApiError: There is no such model, or there is no room for it.
            CyllamaError: It cannot be loaded.
        """
        model = self.find(name)
        model.n_uses += 1
        model.last_used = time.monotonic()
        try:
            async with model.lock:
                if model.loaded is None:
                    model.loaded = await self._load(model)
            yield model.loaded
        finally:
            model.n_uses -= 1
            model.last_used = time.monotonic()
            if self._budget is not None and self._used() > self._budget and self._trimming is None:
                self._trimming = asyncio.ensure_future(self._trim())  # not here: the request may be cancelled

    def _check_queue(self, model: ServedModel, owner: str) -> None:
        """Refuse a request that finds the queue full, unless others have taken its owner's part of that."""
        waiting, most = model.n_places - model.n_parallel, model.n_parallel + self._max_queue
        n_owners = len({*model.places, owner})
        if waiting >= self._max_queue and (model.places[owner] + 1) * n_owners > most:
            message = f"{waiting} requests wait for the model {model.name!r}, the limit: try again later"
            raise too_busy(message, model.mean_seconds * (waiting + 1) / model.n_parallel)

    async def close(self) -> None:
        """Unload all models; their generations end as "cancelled"."""
        if self._trimming is not None:
            await self._trimming
        for model in self.served.values():
            await _unload(model)

    async def _load(self, model: ServedModel) -> LoadedModel:
        path = await asyncio.to_thread(resolve_model_path, model.path)
        files, draft = part_paths(path), model.options.get("draft_model")
        if draft is not None:
            files = [*files, *part_paths(await asyncio.to_thread(resolve_model_path, draft))]
        if (projector := model.options.get("projector")) is not None:
            files = [*files, await asyncio.to_thread(resolve_projector, projector, path)]
        n_weights = sum(part.stat().st_size for part in files if part.exists())
        async with self._room:  # two models that are loaded at once would count the same room twice
            await self._make_room(model, n_weights)
            logger.info("loading the model %s", model.name)
            llm = await _in_thread(lambda going_on: LLM(path, progress_callback=going_on, **model.options))
        return LoadedModel(model.name, llm, SessionPool(llm), KnownSessions(llm), Activity(), n_weights)

    async def _make_room(self, model: ServedModel, n_weights: int) -> None:
        """Unload models until there is room for another one."""
        if self._budget is None:
            return
        if n_weights > self._budget:
            raise ApiError(
                503,
                f"the model {model.name!r} has {n_weights / 2**20:,.1f} MiB, and the server may use "
                f"{self._budget >> 20}: start it with a larger --memory-budget-mb",
            )
        needed = min(n_weights + model.n_more, self._budget)
        while self._used() + needed > self._budget:
            idle = self._idle()
            if not idle:
                raise ApiError(
                    503,
                    f"there is no room for the model {model.name!r} while others answer: try again later",
                    code="no_room",
                    headers={"Retry-After": "5"},
                )
            await _unload(idle[0])

    async def _trim(self) -> None:
        """Unload models that no request uses, since models have grown; one stays loaded."""
        try:
            async with self._room:
                while self._used() > (self._budget or 0) and len(self.loaded) > 1 and (idle := self._idle()):
                    await _unload(idle[0])
        finally:
            self._trimming = None

    def _idle(self) -> list[ServedModel]:
        """Return the loaded models that no request uses, the least recently used one first."""
        idle = [each for each in self.served.values() if each.loaded is not None and not each.n_uses]
        return sorted(idle, key=lambda each: each.last_used)

    def _used(self) -> int:
        return sum(each.loaded.n_bytes for each in self.served.values() if each.loaded is not None)


async def _unload(model: ServedModel) -> None:
    loaded, model.loaded = model.loaded, None
    if loaded is not None:
        logger.info("unloading the model %s", model.name)
        model.n_more = loaded.n_bytes - loaded.n_weights
        await asyncio.to_thread(loaded.llm.close)


async def _in_thread(load: Callable[[Callable[[float], bool]], LLM]) -> LLM:
    """Load a model in a thread. Loading stops when the task is cancelled."""
    wanted = True
    loading = asyncio.ensure_future(asyncio.to_thread(load, lambda _: wanted))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        wanted = False
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


def default_parallel() -> int:
    """Return how many generations a model decodes together on this machine.

    >>> 4 <= default_parallel() <= MOST_PARALLEL
    True
    """
    least, memory = ModelConfig().n_parallel, available_memory()
    by_memory = MOST_PARALLEL if memory is None else memory // PARALLEL_BYTES
    return max(least, min(MOST_PARALLEL, PARALLEL_PER_CORE * physical_cores(), by_memory))
