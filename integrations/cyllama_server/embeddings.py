"""`/v1/embeddings` and `/v1/rerank`."""

from __future__ import annotations

import base64
import math
import struct
import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .connection import read_body, until_gone
from .errors import ApiError
from .models import LoadedModel
from .server import Server, server_of

router = APIRouter()

MOST_INPUTS = 2048


class EmbeddingsRequest(BaseModel):
    """Texts to embed, as OpenAI's API has them."""

    model_config = ConfigDict(strict=True)

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)


class RerankRequest(BaseModel):
    """Documents to rank, as the APIs of Jina and Cohere have them."""

    model_config = ConfigDict(strict=True)

    query: str
    documents: list[str | dict[str, Any]] = Field(min_length=1, max_length=MOST_INPUTS)
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False


@router.post("/v1/embeddings", response_model=None)
async def embeddings(request: Request) -> Response:
    """Return the embeddings of some texts."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, EmbeddingsRequest)
    with server.models.place(body.model, tenant):
        return await until_gone(request.receive, _embed(server, body))


async def _embed(server: Server, body: EmbeddingsRequest) -> Response:
    async with server.models.keep_loaded(body.model) as model:
        texts = _texts(model, body.input)
        vectors = await model.llm.aembed(texts)
        n_tokens = sum(map(model.llm.count_tokens, texts))
    shorter = [_shorten(vector, body.dimensions) for vector in vectors]
    return JSONResponse(
        {
            "object": "list",
            "model": body.model or model.name,
            "data": [
                {"object": "embedding", "index": i, "embedding": _encode(vector, body.encoding_format)}
                for i, vector in enumerate(shorter)
            ],
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }
    )


@router.post("/v1/rerank", response_model=None)
async def rerank(request: Request) -> Response:
    """Return how well documents answer a query, the best first."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, RerankRequest)
    with server.models.place(body.model, tenant):
        return await until_gone(request.receive, _rank(server, body))


async def _rank(server: Server, body: RerankRequest) -> Response:
    documents = [_document(each, i) for i, each in enumerate(body.documents)]
    async with server.models.keep_loaded(body.model) as model:
        scores = await model.llm.arerank(body.query, documents)
        n_tokens = sum(map(model.llm.count_tokens, [body.query, *documents]))
    order = sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)[: body.top_n]
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if body.return_documents:
        results = [each | {"document": {"text": documents[each["index"]]}} for each in results]
    return JSONResponse(
        {
            "id": f"rerank-{time.time_ns():x}",
            "object": "list",
            "model": body.model or model.name,
            "results": results,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }
    )


def _texts(model: LoadedModel, given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    """Return the texts to embed; clients such as LangChain's send tokens, which they have made with `tiktoken`."""
    items: list[Any] = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not 1 <= len(items) <= MOST_INPUTS:
        raise ApiError(400, f"input: expected 1 to {MOST_INPUTS} texts, not {len(items)}", param="input")
    return [item if isinstance(item, str) else model.llm.detokenize(item) for item in items]


def _document(document: str | dict[str, Any], index: int) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        message = f"documents.{index}: expected a text, or an object with one as 'text', not {document!r:.80}"
        raise ApiError(400, message, param="documents")
    return text


def _shorten(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """Return the beginning of a vector, scaled to the length 1, as OpenAI's API does for models made for that."""
    if dimensions is None:
        return vector
    if dimensions > len(vector):
        raise ApiError(
            400,
            f"dimensions: expected at most {len(vector)}, which the model has, not {dimensions}",
            param="dimensions",
        )
    part = vector[:dimensions]
    length = math.sqrt(sum(value * value for value in part)) or 1.0
    return [value / length for value in part]


def _encode(vector: Sequence[float], encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    return list(vector)
