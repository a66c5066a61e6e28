"""Names of models: those of repositories, and those of files in them. The rules are those of llama.cpp's ``-hf``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0")  # what is taken without a name; else the first file
_PREFIX = "hf:"
_REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(:(?P<quantization>[\w.-]+))?", re.ASCII)
_FILE = re.compile(r"(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)/(?P<file>.+\.gguf)", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(
    r"https?://(www\.)?(huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+)"
    r"(/(blob|resolve)/[^/]+/(?P<file>[^?#]+\.gguf))?",
    re.ASCII | re.IGNORECASE,
)
_PART = re.compile(r"(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE | re.DOTALL)
_QUANTIZATION = re.compile(r"[-.]([A-Z0-9_]+)$", re.IGNORECASE)
_NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")  # projectors, drafts and statistics


class ModelName(NamedTuple):
    """A model on the hub.

    Attributes:
        repo: Its repository, ``owner/repo``.
        quantization: The quantization, such as "Q4_K_M"; ``None`` for the default one.
        file: A file of the repository, or a pattern with ``*`` and ``?``; ``None`` to choose by the quantization.
    """

    repo: str
    quantization: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        if self.file is not None:
            return f"{_PREFIX}{self.repo}/{self.file}"
        return self.repo if self.quantization is None else f"{self.repo}:{self.quantization}"


@dataclass(frozen=True)
class Part:
    """What the name of one file of a split model says.

    Attributes:
        prefix: What the names of all parts begin with.
        index: Which part it is, from 1.
        count: How many parts there are.
        suffix: What the names end with, ``.gguf``.
    """

    prefix: str
    index: int
    count: int
    suffix: str

    @property
    def names(self) -> list[str]:
        """The names of all parts, in their order."""
        return [f"{self.prefix}-{i:05}-of-{self.count:05}{self.suffix}" for i in range(1, self.count + 1)]


def parse_name(text: str) -> ModelName | None:
    """Return the model that a text names, or ``None`` where it can only be a path.

    >>> parse_name("owner/repo:Q8_0").quantization
    'Q8_0'
    >>> parse_name("hf:owner/repo/model.gguf").file
    'model.gguf'
    >>> parse_name("models/model.gguf")
    """
    explicit = text.startswith(_PREFIX)
    rest = text.removeprefix(_PREFIX)
    if explicit and (match := _FILE.fullmatch(rest)):
        return ModelName(match["repo"], file=match["file"])
    match = _REPOSITORY.fullmatch(rest)
    if match is None or (not explicit and rest.lower().endswith(".gguf")):
        return None
    return ModelName(match["repo"], match["quantization"])


def name_of_address(text: str) -> str | None:
    """Return the name of the model that an address of the Hugging Face hub shows, or ``None`` for other texts.

    >>> name_of_address("https://huggingface.co/owner/repo/blob/main/model-Q8_0.gguf")
    'hf:owner/repo/model-Q8_0.gguf'
    >>> name_of_address("https://huggingface.co/owner/repo")
    'owner/repo'
    """
    match = _ADDRESS.match(text)
    if match is None:
        return None
    named = f"{_PREFIX}{match['repo']}/{match['file']}" if match["file"] else match["repo"]
    return named if parse_name(named) else None


def parse_part(name: str) -> Part | None:
    """Return what the name of a file says of a split model, or ``None`` for the file of a whole one."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["index"]) <= int(match["count"]):
        return None
    return Part(match["prefix"], int(match["index"]), int(match["count"]), match["suffix"])


def files_of(name: str) -> list[str]:
    """Return the names of all files of a model, given one of them."""
    part = parse_part(name)
    return [name] if part is None else part.names


def quantization_of(name: str) -> str:
    """Return the quantization that the name of a file ends with, such as "Q4_K_M"; empty if it does not say.

    >>> quantization_of("llama-1b-q4_k_m-00001-of-00002.gguf")
    'Q4_K_M'
    """
    part = parse_part(name)
    stem = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE) if part is None else part.prefix
    match = _QUANTIZATION.search(stem)
    return match[1].upper() if match and re.search(r"\d", match[1]) else ""


def models_in(names: Iterable[str]) -> list[str]:
    """Return the files that are models; of a split model, its first file. Projectors and drafts are left out."""
    found: list[str] = []
    for name in sorted(names):
        part = parse_part(name)
        if not name.lower().endswith(".gguf") or (part is not None and part.index > 1):
            continue
        if not any(word in name.rpartition("/")[2] for word in _NOT_MODELS):
            found.append(name)
    return found


def choose(models: Sequence[str], quantization: str | None) -> str | None:
    """Return the model of a quantization: a file in whose name a dot or hyphen follows it, in any case.

    Args:
        models: The models to choose from.
        quantization: Its name; ``None`` for the first of ``DEFAULT_QUANTIZATIONS`` that there is, else the first model.
    """
    for wanted in DEFAULT_QUANTIZATIONS if quantization is None else (quantization,):
        for name in models:
            if re.search(re.escape(wanted) + "[.-]", name, re.IGNORECASE):
                return name
    return models[0] if models and quantization is None else None


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the files that fit a pattern; of a split model, its first file. A whole name fits in any folder of it."""
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if pattern in ggufs:
        return [files_of(pattern)[0]]
    found = [name for name in models_in(ggufs) if fnmatchcase(name, pattern)]
    return found or sorted({files_of(name)[0] for name in ggufs if fnmatchcase(name, pattern)})
