"""How much memory the models of a server may take, with all that grows beside their weights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cyllama import Image
from cyllama.models import TINY_CHAT
from cyllama_server import ServerSettings
from cyllama_server.errors import ApiError
from cyllama_server.models import Models

from ..support.vision import write_projector

MIB = 2**20
WEIGHTS = TINY_CHAT.stat().st_size


def settings(budget_mb: int, names: str = "abc", **options: Any) -> ServerSettings:
    return ServerSettings(model=[f"{name}={TINY_CHAT}" for name in names], memory_budget_mb=budget_mb, **options)


async def generate(models: Models, name: str, n_prompt: int = 10) -> int:
    """Let a model answer; return the bytes that it takes while its context exists."""
    async with models.keep_loaded(name) as model:
        await model.llm.agenerate([300] * n_prompt, session="one", max_tokens=2)
        return model.n_bytes


async def settled(models: Models) -> set[str]:
    """Return which models are loaded, after those were unloaded that had to be."""
    while models._trimming is not None:
        await asyncio.sleep(0.001)
    return set(models.loaded)


def test_a_model_takes_what_its_context_and_its_sessions_take(tmp_path: Path):
    projector = write_projector(tmp_path / "mmproj.gguf")

    async def main() -> None:
        models = Models(settings(10_000))
        async with models.keep_loaded("a") as model:
            assert model.n_bytes == model.n_weights == WEIGHTS
        with_draft = Models(settings(10_000, option=[f"draft_model={TINY_CHAT}"]))
        async with with_draft.keep_loaded("a") as model:
            assert model.n_bytes == 2 * WEIGHTS
        await with_draft.close()
        seeing = Models(settings(10_000, option=[f"projector={projector}"]))
        async with seeing.keep_loaded("a") as model:
            assert model.n_bytes == WEIGHTS + projector.stat().st_size
        await seeing.close()
        small = await generate(models, "a")
        assert small > WEIGHTS
        assert await generate(models, "a", 1800) > small
        await models.close()

    asyncio.run(main())


def test_images_of_sessions_count(tmp_path: Path):
    projector = write_projector(tmp_path / "mmproj.gguf")
    photo = Image(bytes(3 * 500 * 400), width=500, height=400)
    content = [{"type": "image", "image": photo}, {"type": "text", "text": "What is this?"}]

    async def main() -> None:
        models = Models(settings(10_000, "a", option=[f"projector={projector}", "image_cache_mb=0"]))
        async with models.keep_loaded("a") as model:
            await model.llm.agenerate("Hello", session="text", max_tokens=1)
            assert model.llm.stats.image_bytes == 0
            before = model.n_bytes
            for session in ("ada", "ben"):  # both show the same image, which is in memory once
                await model.llm.achat([{"role": "user", "content": content}], session=session, max_tokens=1)
            assert model.llm.stats.image_bytes == len(photo.rgb)
            assert model.n_bytes >= before + len(photo.rgb)
            model.llm.reset_context(session="ada")
            model.llm.reset_context(session="ben")
            assert model.llm.stats.image_bytes == 0
        await models.close()
        models = Models(settings(10_000, "a", option=[f"projector={projector}"]))
        async with models.keep_loaded("a") as model:
            await model.llm.achat([{"role": "user", "content": content}], max_tokens=1)
            assert model.llm.stats.image_bytes > 0, "its embeddings are kept"
        await models.close()

    asyncio.run(main())


def test_models_that_grow_drive_out_others():
    async def main() -> None:
        models = Models(settings(10_000))
        one = await generate(models, "a")
        await models.close()

        budget = -(-(2 * one) // MIB) + 1  # for two with small contexts, and not for three
        models = Models(settings(budget))
        await generate(models, "a")
        await generate(models, "b")
        assert await settled(models) == {"a", "b"}
        await generate(models, "c")
        assert await settled(models) == {"b", "c"}, "before it began, there was room for its weights"
        await generate(models, "c", 2000)
        grown = await generate(models, "c", 2000)
        assert await settled(models) == ({"b", "c"} if one + grown <= budget * MIB else {"c"})
        await models.close()

    asyncio.run(main())


def test_a_model_that_is_loaded_again_needs_what_it_took_before():
    async def main() -> None:
        models = Models(settings(10_000))
        one = await generate(models, "a")
        await models.close()
        assert models.served["a"].n_more == one - WEIGHTS

        models = Models(settings(-(-(one + WEIGHTS) // MIB)))
        models.served["b"].n_more = one - WEIGHTS
        await generate(models, "a")
        async with models.keep_loaded("b"):
            assert set(models.loaded) == {"b"}
        await models.close()

    asyncio.run(main())


def test_one_model_stays_however_large_it_gets():
    async def main() -> None:
        models = Models(settings(-(-WEIGHTS // MIB), "a"))
        await generate(models, "a", 1000)
        assert await settled(models) == {"a"}
        await generate(models, "a", 1000)
        await models.close()

    asyncio.run(main())


def test_a_model_that_answers_is_not_unloaded():
    async def main() -> None:
        models = Models(settings(-(-WEIGHTS // MIB), "ab"))
        async with models.keep_loaded("a"):
            with pytest.raises(ApiError, match="no room"):
                async with models.keep_loaded("b"):
                    pass
        await models.close()

    asyncio.run(main())
