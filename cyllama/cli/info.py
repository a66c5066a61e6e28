"""`cyllama info`: this build, what it can run on, and a model's metadata."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..llama import llama_cpp
from .options import ModelOption
from .terminal import load, out


def info(model: ModelOption = None) -> None:
    """Show this build, what it can run on, and a model's metadata."""
    build = Table("build", "", show_header=False, box=None)
    build.add_row("cyllama", __version__)
    build.add_row("llama.cpp", f"b{llama_cpp.build_number()} ({llama_cpp.compiler()})")
    build.add_row("backends", ", ".join(llama_cpp.backends()))
    build.add_row("features", escape(llama_cpp.system_info().strip()))
    for device in llama_cpp.devices():
        memory = f"{device.memory_free / 2**30:.1f} of {device.memory_total / 2**30:.1f} GiB free"
        build.add_row("device", escape(f"{device.name}: {device.description} ({device.type}), {memory}"))
    out.print(build)
    with load(model) as llm:
        table = Table("key", "value", show_header=False, box=None)
        table.add_row("file", escape(llm.model_path))
        table.add_row("model", escape(f"{llm.model.desc}, {llm.model.n_params:,} parameters, {llm.model.size:,} bytes"))
        table.add_row("chat template", "yes" if llm.model.chat_template() is not None else "no")
        for key, value in sorted(llm.model.metadata.items()):
            table.add_row(escape(key), escape(_shorten(value)))
        out.print()
        out.print(table)


def _shorten(value: str, limit: int = 100) -> str:
    value = value.replace("\n", "\\n")
    return value if len(value) <= limit else f"{value[:limit]}... ({len(value):,} characters)"
