"""Which tests depend on how a processor rounds: those that are also run as another processor computes."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

TESTS = Path(__file__).parents[1]
#: Of these folders, the files whose tests depend on how a processor rounds. The others give the same on every one: they
#: compute little or nothing, or compare with what they computed before. In folders that are not named, all may depend.
COMPUTING = {
    "chat": ("test_calls_or_answers", "test_chat", "test_tiny_chat"),
    "cli": (),
    "docs": ("test_examples", "test_langchain_examples"),
    "fuzz": (),
    "grammar": (),
    "langchain": ("test_adapters", "test_agents*", "test_chat_model*", "test_llm*", "test_standard_*"),
    "llama": (
        *("test_adapter", "test_attention", "test_backend", "test_chains", "test_context", "test_decode_and_sample"),
        *("test_in_graph", "test_large_vocabulary", "test_mathematics", "test_memory", "test_outputs"),
        *("test_f16_products", "test_products", "test_quantized_products", "test_state", "test_variant"),
    ),
    "models": (),
    "quality": (),
    "training": (),
}


def computes(path: Path) -> bool:
    """Tell whether tests of a file, or of files in a folder, depend on how a processor rounds."""
    folder = path.relative_to(TESTS).parts[:1]
    names = COMPUTING.get(folder[0]) if path.suffix == ".py" and folder else None
    return names is None or any(fnmatch(path.stem, name) for name in names)
