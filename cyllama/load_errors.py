"""Why a model cannot be loaded, and what to do about it, in words."""

from __future__ import annotations

import re

from .errors import ModelLoadError
from .llama.llama_cpp import build_number

#: What llama.cpp writes before a reason, and what says only that there was one.
_ORIGIN = re.compile(r"^\w+: (error loading model: )?")
_NO_REASON = re.compile(r"(llama_model_loader: )?failed to load model( from .*)?$")
_DAMAGED = "the file is damaged or incomplete: download it again"
#: What to do, by what the reason says.
_HINTS = {
    r"not within the file bounds|corrupted|failed to read|gguf_init|is empty": _DAMAGED,
    r"unknown (model )?architecture": f"llama.cpp b{build_number()}, which this is, does not know it: a newer one may",
    r"alloc|out of memory|[Cc]annot allocate": "there is too little memory: take a smaller quantization",
    r"not a GGUF file": "download a GGUF file, or convert the model with llama.cpp",
}
#: What a file is that was meant to be a model, by how it begins.
_NOT_MODELS = {
    rb"version https://git-lfs": "it is a pointer of Git LFS: `git lfs pull` downloads the model itself",
    rb"\s*(?i:<!doctype|<html)": "it is a web page: download the file that the page is about",
}


def load_error(path: str, error: Exception) -> ModelLoadError:
    """Return the error for a file that llama.cpp does not load.

    Args:
        path: The file.
        error: What llama.cpp says of it.
    """
    text, begin = str(error), f"cannot load {path}: "
    if text.startswith(begin):
        reasons = dict.fromkeys(_ORIGIN.sub("", each) for each in text.removeprefix(begin).split("; "))
        text = begin + "; ".join([each for each in reasons if not _NO_REASON.match(each)] or reasons)
    hints = [hint for pattern, hint in _HINTS.items() if re.search(pattern, text)]
    if "not a GGUF file" in text:
        hints = [*_about(path), *hints]
    return ModelLoadError(f"{text}; {hints[0]}" if hints else text)


def _about(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path that llama.cpp opened as it is
            head = file.read(64)
    except OSError:
        return []
    return [hint for pattern, hint in _NOT_MODELS.items() if re.match(pattern, head)]
