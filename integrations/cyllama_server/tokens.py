"""`/tokenize` and `/detokenize`, as llama-server has them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .connection import read_body
from .server import server_of

router = APIRouter()


class TokenizeRequest(BaseModel):
    """A text to make into tokens."""

    model_config = ConfigDict(strict=True)

    content: str
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(BaseModel):
    """Tokens to make into a text."""

    model_config = ConfigDict(strict=True)

    tokens: list[int]
    model: str | None = None


@router.post("/tokenize", response_model=None)
async def tokenize(request: Request) -> Response:
    """Return the token ids of a text."""
    server = server_of(request)
    server.identify(request)
    body = await read_body(request, TokenizeRequest)
    async with server.models.keep_loaded(body.model) as model:
        llm = model.llm
        add_bos = None if body.add_special else False
        tokens: list[Any] = await asyncio.to_thread(
            llm.tokenize, body.content, add_bos=add_bos, parse_special=body.parse_special
        )
        if body.with_pieces:
            tokens = [{"id": token, "piece": llm.detokenize([token])} for token in tokens]
    return JSONResponse({"tokens": tokens})


@router.post("/detokenize", response_model=None)
async def detokenize(request: Request) -> Response:
    """Return the text of token ids."""
    server = server_of(request)
    server.identify(request)
    body = await read_body(request, DetokenizeRequest)
    async with server.models.keep_loaded(body.model) as model:
        return JSONResponse({"content": await asyncio.to_thread(model.llm.detokenize, body.tokens)})
