"""What no other API has: health, metrics, tokens."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .models import ServedModel
from .server import server_of

router = APIRouter()


@router.get("/health", response_model=None)
async def health() -> Response:
    """Say that the server answers."""
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    """Return counters in Prometheus's format."""
    server = server_of(request)
    server.tenants.check_admin(request)
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> Response:
    """List the models."""
    server = server_of(request)
    server.identify(request)
    return JSONResponse({"object": "list", "data": [_describe(each) for each in server.models.served.values()]})


@router.get("/v1/models/{name:path}", response_model=None)
async def model(request: Request, name: str) -> Response:
    """Describe a model."""
    server = server_of(request)
    server.identify(request)
    return JSONResponse(_describe(server.models.find(name)))


def _describe(model: ServedModel) -> dict[str, object]:
    modalities = ["text"] if model.options.get("projector") is None else ["text", "image"]
    found: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "cyllama",
        "loaded": model.loaded is not None,
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},  # as llama-server has it
    }
    if model.loaded is not None:
        llm = model.loaded.llm
        found["meta"] = {
            "n_ctx_train": llm.n_ctx_train,
            "n_embd": llm.model.n_embd,
            "n_params": llm.model.n_params,
            "n_vocab": llm.model.vocab.n_tokens,
            "size": llm.model.size,
        }
    return found
