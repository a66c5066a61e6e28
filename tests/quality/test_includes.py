"""The C++ sources include without a circle, and downward only."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import pytest

from ..support.source_tree import ROOT, circle, included, native_files

Graph = dict[str, set[str]]


def components(folder: str) -> Graph:
    """Return what the files of a folder include from it. A header and its source file are one node."""
    files = [path for path in native_files() if path.parent.name == folder]
    names = {path.name: path.stem for path in files}
    graph: Graph = {path.stem: set() for path in files}
    for path in files:
        graph[path.stem] |= {names[name] for name in included(path) if name in names} - {path.stem}
    return graph


def layers() -> dict[str, int]:
    """Return the layer of each source file of ext/, counted from below, as its CMakeLists.txt lists them."""
    text = (ROOT / "ext" / "CMakeLists.txt").read_text(encoding="utf-8")
    order = re.search(r"^set\(layers (.+)\)$", text, re.MULTILINE)
    assert order
    found: dict[str, int] = {}
    for i, layer in enumerate(order[1].split()):
        files = re.search(rf"^set\({layer}\b[^\n]*\n(.+?)\)$", text, re.MULTILINE | re.DOTALL)
        assert files, layer
        found |= dict.fromkeys((name.removesuffix(".cpp") for name in files[1].split()), i)
    return found


@pytest.mark.parametrize("folder", ["ext", "llama.cpp"])
def test_no_chain_of_includes_leads_back(folder: str):
    assert circle(components(folder)) == []


def test_every_source_file_is_in_a_layer():
    sources = {path.stem for path in native_files() if path.parent.name == "ext" and path.suffix == ".cpp"}
    assert layers().keys() == sources


def test_no_include_leads_to_a_higher_layer():
    graph, layer_of = components("ext"), layers()
    for name in TopologicalSorter(graph).static_order():
        # a header without a source file is as high as what it includes
        layer = layer_of.setdefault(name, max((layer_of[other] for other in graph[name]), default=0))
        assert {other for other in graph[name] if layer_of[other] > layer} == set(), name
