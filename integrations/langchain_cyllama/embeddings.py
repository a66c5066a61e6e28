"""Embeddings of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from langchain_core.embeddings import Embeddings
from pydantic import Field

from cyllama import ConfigError

from ._arguments import translate
from ._base import CyllamaModel
from ._unused import UNUSED_IN_EMBEDDINGS, Unused


class CyllamaEmbeddings(CyllamaModel, Embeddings):
    """A GGUF model in this process that computes embeddings.

    All models except rank models compute embeddings. For good ones, use a model that was trained for them.

    Setup:
        ```bash
        pip install '.[langchain]'  # in a checkout of cyllama's repository
        ```

    Key init args:
        model_path: str | None
            A GGUF file, or a model on the hub: "owner/repo:Q4_K_M"; `None` for tiny-chat, the embedded model.
        normalize: bool
            Whether every vector is scaled to the length 1.
        truncate: bool
            Whether a text that is too long is cut at its end.
        n_ctx: int | None
            Maximum number of tokens of a text.
        n_gpu_layers: int | str | None
            Layers to keep on GPUs; "auto", the default, for what fits, -1 for all.
        llm: cyllama.LLM | None
            A loaded model to use instead.

    Every option of `cyllama.ModelConfig` is an argument too, and so are those of `LlamaCppEmbeddings` and
    `OllamaEmbeddings`.

    Instantiate:
        ```python
        from langchain_cyllama import CyllamaEmbeddings

        embeddings = CyllamaEmbeddings()
        ```

    Embed single text:
        ```python
        vector = embeddings.embed_query("What do foxes eat?")
        ```

    Embed multiple texts, in one pass:
        ```python
        vectors = embeddings.embed_documents(["Foxes eat mice.", "The sky is blue."])
        ```

    Async:
        ```python
        await embeddings.aembed_documents(["Foxes eat mice.", "The sky is blue."])
        ```

    Raises:
        cyllama.ModelNotFoundError: There is no such file, nor a model of that name.
        cyllama.ConfigError: An argument has a value out of its range.
        cyllama.ConfigTypeError: There is no such argument.
    """

    normalize: bool = True
    """Whether every vector is scaled to the length 1, so that the dot product of two is their cosine similarity."""

    truncate: bool = True
    """Whether a text that is too long is cut at its end; otherwise it is refused."""

    dimensions: Annotated[int, Field(ge=1)] | None = None
    """How many dimensions of every vector to keep, from the first one, for models that were trained for it."""

    n_ctx: int | None = None
    """Maximum number of tokens of a text; 0 or `None` for the training length of the model."""

    num_ctx: int | None = None
    """Another name for `n_ctx`."""

    n_batch: int | None = None
    """Another name for `n_ubatch`: how many tokens are computed in one pass."""

    verbose: bool = False
    """Whether to show cyllama's log on stderr."""

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_EMBEDDINGS

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the embeddings of texts. Short texts are computed in one pass.

        >>> from langchain_cyllama import CyllamaEmbeddings
        >>> vectors = CyllamaEmbeddings().embed_documents(["Foxes eat mice.", "The sky is blue."])
        >>> len(vectors), len(vectors[0])
        (2, 256)

        Args:
            texts: Any number of texts.

        Returns:
            A list of `n_embd` numbers for each text, or of `dimensions` numbers.

        Raises:
            PromptError: A text is empty.
            ContextSizeError: A text is too long, and `truncate` is not set.
        """
        return self._cut(self.client.embed(texts, **self._embedding_options())) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a text.

        >>> from langchain_cyllama import CyllamaEmbeddings
        >>> len(CyllamaEmbeddings().embed_query("What do foxes eat?"))
        256

        Args:
            text: The text.

        Returns:
            A list of `n_embd` numbers, or of `dimensions` numbers.

        Raises:
            PromptError: The text is empty.
            ContextSizeError: The text is too long, and `truncate` is not set.
        """
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do what `embed_documents` does without blocking the event loop. No thread waits for the result.

        Args:
            texts: Any number of texts.
        """
        return self._cut(await self.client.aembed(texts, **self._embedding_options())) if texts else []

    async def aembed_query(self, text: str) -> list[float]:
        """Do what `embed_query` does without blocking the event loop. No thread waits for the result.

        Args:
            text: The text.
        """
        return (await self.aembed_documents([text]))[0]

    # -------------------- internal

    def _given(self) -> dict[str, Any]:
        given = super()._given()
        n_batch = given.pop("n_batch", None)
        if n_batch is not None and given.setdefault("n_ubatch", n_batch) != n_batch:
            raise ConfigError(f"n_batch={n_batch} and n_ubatch={given['n_ubatch']} differ: leave one of them out")
        return given

    def _embedding_options(self) -> dict[str, Any]:
        return {
            "normalize": self.normalize,
            "truncate": self.truncate,
            "n_ctx": translate({"n_ctx": self.n_ctx, "num_ctx": self.num_ctx}).get("n_ctx"),
        }

    def _cut(self, vectors: list[list[float]]) -> list[list[float]]:
        if self.dimensions is None:
            return vectors
        if self.dimensions > len(vectors[0]):
            raise ConfigError(f"dimensions is {self.dimensions}, but the vectors have {len(vectors[0])}")
        cut = [vector[: self.dimensions] for vector in vectors]
        return [_normalized(vector) for vector in cut] if self.normalize else cut


def _normalized(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else vector
