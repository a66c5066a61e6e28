"""A chat over HTTP with FastAPI: one model in each process, streams, and an answer at once where too many wait.

Run it with ``uvicorn web:app``, or ``gunicorn -k uvicorn_worker.UvicornWorker -w 1 web:app``, in this folder. The
variable ``MODEL`` is the path or name of a model.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from cyllama import LLM, AsyncChatStream, BusyError, CyllamaError

T = TypeVar("T")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model in the process that answers, after gunicorn has forked it, and without blocking its event loop."""
    max_waiting = int(os.environ.get("MAX_WAITING", "16"))
    app.state.llm = await asyncio.to_thread(LLM, os.environ.get("MODEL"), n_parallel=8, max_waiting=max_waiting)
    try:
        yield
    finally:
        await asyncio.to_thread(app.state.llm.close)


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    """What a client sends."""

    messages: list[dict[str, Any]]
    conversation: str | None = None  # of which only what is new is evaluated
    max_tokens: int = Field(256, ge=1, le=4096)
    temperature: float = Field(0.8, ge=0)


def model(request: Request) -> LLM:
    return request.app.state.llm


Model = Annotated[LLM, Depends(model)]


@app.exception_handler(BusyError)
async def busy(_request: Request, error: BusyError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=429, headers={"Retry-After": "1"})


@app.exception_handler(CyllamaError)
async def refused(_request: Request, error: CyllamaError) -> JSONResponse:
    """Answer 400 to what the caller did wrong, such as messages with an unknown role or too many tokens."""
    return JSONResponse({"error": str(error)}, status_code=400 if isinstance(error, ValueError) else 500)


async def unless_left(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer, and cancel it when the client leaves: then nothing is generated for it any more."""
    task = asyncio.ensure_future(answer)
    try:
        while not (await asyncio.wait([task], timeout=0.1))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "the client has left")
        return task.result()
    finally:
        task.cancel()


@app.post("/chat")
async def chat(question: Question, request: Request, llm: Model) -> dict[str, Any]:
    options = question.model_dump(include={"max_tokens", "temperature"})
    answer = await unless_left(request, llm.achat(question.messages, session=question.conversation, **options))
    return {"message": answer.message.to_dict(), "finish_reason": answer.finish_reason}


@app.post("/chat/stream")
async def stream_chat(question: Question, llm: Model) -> StreamingResponse:
    options = question.model_dump(include={"max_tokens", "temperature"})
    # An error is raised here, before the response has begun with its status.
    stream = llm.astream_chat(question.messages, session=question.conversation, **options)
    return StreamingResponse(events(stream), media_type="text/event-stream")


async def events(stream: AsyncChatStream) -> AsyncIterator[str]:
    """Yield server-sent events. When the client leaves, this is cancelled, and the end of the block ends the answer."""
    async with stream:
        async for delta in stream:
            yield f"data: {json.dumps({'content': delta.content})}\n\n"
        yield f"data: {json.dumps({'finish_reason': stream.response.finish_reason})}\n\n"


@app.get("/health")
async def health(llm: Model) -> dict[str, int]:
    return {"running": llm.stats.running, "waiting": llm.stats.waiting}
