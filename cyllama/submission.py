"""From a task to a stream of its text, to several texts of one prompt, or to the first valid answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Protocol, TypeVar

from .attempts import MAX_SEED, AnyResponse, Attempts, is_valid
from .calls import Task
from .config import GenerationConfig
from .engine import Drafter, ModelDrafter, Request, context_size, sampler_maker
from .response import Response
from .runtime import Runtime
from .stream import AsyncStream, Chunks, LoopOutlet, Stream

ReadT = TypeVar("ReadT", covariant=True)

# -------------------- one generation


def start(
    runtime: Runtime,
    task: Task,
    *,
    session: str | None = None,
    handle: object | None = None,
    streaming: bool = True,
    on_token: Callable[[str], object] | None = None,
) -> Stream:
    """Begin a generation for a thread.

    Args:
        runtime: What generates.
        task: What to generate.
        session: Name of the conversation that it belongs to.
        handle: The session object that asks, if there is one.
        streaming: Whether text is wanted before the end.
        on_token: Called with every chunk.

    Raises:
        ConfigTypeError: ``on_token`` cannot be called, or is an async function.
        CyllamaError: What the engine refuses at once, such as a prompt that is too long.
    """
    queue: Chunks = SimpleQueue()
    request = _request(runtime, task, queue, streaming=streaming, whole=session is None)
    # Dropping the stream cancels the request: Ctrl-C leaves nothing.
    stream = Stream(runtime, request, queue, on_token, task.response_format)
    runtime.submit([request], session, handle, limited=not task.is_retry)
    return stream


def start_async(
    runtime: Runtime,
    task: Task,
    *,
    session: str | None = None,
    handle: object | None = None,
    on_token: Callable[[str], object] | None = None,
) -> AsyncStream:
    """Begin a generation for the running event loop. Arguments and errors are those of :func:`start`."""
    outlet = LoopOutlet()
    request = _request(runtime, task, outlet, streaming=True, whole=session is None)
    stream = AsyncStream(runtime, request, outlet, on_token, task.response_format)
    runtime.submit([request], session, handle, limited=not task.is_retry)
    return stream


def _request(runtime: Runtime, task: Task, outlet: Chunks | LoopOutlet, *, streaming: bool, whole: bool) -> Request:
    """Return a request, with all preparation done that takes time. Nothing of it keeps the runtime.

    Args:
        runtime: What generates.
        task: What to generate.
        outlet: Where the text goes.
        streaming: Whether text is wanted before the end.
        whole: Whether the prompt depends on no conversation: then one that is too long is refused at once.
    """
    config, model = task.config, runtime.model
    make_sampler = sampler_maker(config, runtime.vocab, config.n_ctx or model.n_ctx_train, task.first_samplers())
    size_for = partial(context_size, config=config, model=model, kv_cells=runtime.config.kv_cells)
    request = Request(
        task.prompt,
        config,
        outlet=outlet,
        streaming=streaming,
        size_for=size_for,
        make_sampler=make_sampler,
        make_drafter=_drafter_maker(runtime, config),
        preserved=task.preserved,
        adapters=task.adapters,
    )
    if whole:
        request.resolve()
    return request


def _drafter_maker(
    runtime: Runtime, config: GenerationConfig
) -> Callable[[Sequence[int]], Drafter | ModelDrafter] | None:
    """Return what makes the drafter of a request from its prompt; ``None`` for no drafts."""
    ends, n_vocab = runtime.ends, runtime.vocab.n_tokens
    if config.speculation == "lookup" and runtime.can_speculate:
        return partial(Drafter, ends=ends)
    if config.speculation == "draft" and runtime.drafts:
        return lambda _: ModelDrafter(ends, n_vocab)
    return None


# -------------------- several of one prompt


def generate_all(runtime: Runtime, task: Task, n: int) -> list[Response]:
    """Return ``n`` continuations of one prompt, which is evaluated once."""
    queues: list[Chunks] = [SimpleQueue() for _ in range(n)]
    requests = _group(runtime, task, queues)
    pairs = zip(requests, queues, strict=True)
    streams = [Stream(runtime, *pair, response_format=task.response_format) for pair in pairs]
    try:
        runtime.submit(requests)
        return [stream.read() for stream in streams]
    except BaseException:  # Ctrl-C, or the failure of one: its traceback would keep the others running
        for stream in streams:
            stream.cancel()
        raise


async def generate_all_async(runtime: Runtime, task: Task, n: int) -> list[Response]:
    """Do the same as :func:`generate_all` for an event loop."""
    outlets = [LoopOutlet() for _ in range(n)]
    requests = _group(runtime, task, outlets)
    pairs = zip(requests, outlets, strict=True)
    streams = [AsyncStream(runtime, *pair, response_format=task.response_format) for pair in pairs]
    try:
        runtime.submit(requests)
        return [await stream.read() for stream in streams]
    except BaseException:  # the task was cancelled, or one of them failed
        for stream in streams:
            stream.cancel()
        raise


def _group(runtime: Runtime, task: Task, outlets: Sequence[Chunks | LoopOutlet]) -> list[Request]:
    """Return a generation for each outlet, all of the same prompt, to be submitted together."""
    first = task.first_samplers()  # compiled once
    seed = task.config.seed
    requests: list[Request] = []
    for i, outlet in enumerate(outlets):
        config = task.config if seed is None else task.config.merge(seed=(seed + i) % MAX_SEED)
        each = replace(task, config=config, first_samplers=lambda: [sampler.clone() for sampler in first])
        requests.append(_request(runtime, each, outlet, streaming=False, whole=True))
    return requests


# -------------------- until an answer is valid


class _Readable(Protocol[ReadT]):
    def read(self) -> ReadT: ...


class _AsyncReadable(Protocol[ReadT]):
    async def read(self) -> ReadT: ...


def first_valid(task: Task, max_attempts: int, begin: Callable[[Task], _Readable[AnyResponse]]) -> AnyResponse:
    """Return the first valid answer, or the last one.

    Args:
        task: What to generate in the first attempt; later ones have other seeds.
        max_attempts: How often to generate at most.
        begin: Begins an attempt.

    Raises:
        OutputError: The last answer has a call of a strict tool that is not valid.
    """
    tries = Attempts[AnyResponse](task.config, max_attempts, is_valid)
    for i, config in enumerate(tries):
        with tries.attempt():
            tries.answer = begin(replace(task, config=config, is_retry=i > 0)).read()
    return tries.answer


async def first_valid_async(
    task: Task, max_attempts: int, begin: Callable[[Task], _AsyncReadable[AnyResponse]]
) -> AnyResponse:
    """Do the same as :func:`first_valid` for an event loop."""
    tries = Attempts[AnyResponse](task.config, max_attempts, is_valid)
    for i, config in enumerate(tries):
        with tries.attempt():
            tries.answer = await begin(replace(task, config=config, is_retry=i > 0)).read()
    return tries.answer
