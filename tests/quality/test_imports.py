"""Imports point down: from what callers use to what computes, never back, and no part reaches into another one."""

from __future__ import annotations

import ast
import re

from ..support.source_tree import Module, circle, modules

#: A module imports from its own layer and those below, the first of which know nothing of the others.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("llama", "errors", "option_names", "version"),
    (
        "callers",
        "config",
        "declaration",
        "response",
        "load_errors",
        "models",
        "control_text",
        "images",
    ),  # plain values, and text that is made of tokens
    ("grammar",),
    ("chat", "engine"),  # neither knows the other one
    ("generation_options",),
    ("attempts", "embedding_texts", "loading", "options", "recommended", "session_file", "tokenizer", "vision"),
    ("lora", "call_types", "draft_model"),
    ("loaded_model",),
    ("runtime", "calls"),
    ("stream",),
    ("submission", "chat_stream", "embedding_calls"),
    ("chat_submission", "embeddings"),
    ("llm", "session", "exclusivity", "session_choice", "session_pool"),  # what callers use
    ("",),  # the package itself
    ("compat", "langchain_cyllama", "cyllama_server"),
    ("ray_cyllama",),
    ("cli", "__main__"),
)
LAYER_OF = {name: i for i, names in enumerate(LAYERS) for name in names}

#: Imports for type checkers that point up, and why no type below could stand there.
TYPES_FROM_ABOVE = {
    ("cyllama.response", "cyllama.grammar"): "a response parses itself by the format that was asked for",
}

#: Methods of named tuples, which are public.
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}


def key(module: str) -> str:
    """Return the name that ``LAYERS`` has for a module."""
    package, _, rest = module.partition(".")
    return package if package != "cyllama" else rest.split(".")[0]


def layer(module: str) -> int:
    """Return the layer of a module; the lowest is 0."""
    return LAYER_OF[key(module)]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("cyllama", "langchain_cyllama", "cyllama_server", "ray_cyllama")


def test_every_module_has_a_layer():
    assert [name for name in modules() if key(name) not in LAYER_OF] == []


def test_no_import_points_up():
    wrong = [
        f"{module.name}:{each.line} imports {each.module}"
        for module in modules().values()
        for each in module.imports()
        if is_ours(each.module) and not each.for_types_only and layer(each.module) > layer(module.name)
    ]
    assert wrong == []


def test_chat_and_engine_do_not_know_each_other():
    apart = {"cyllama.chat": "cyllama.engine", "cyllama.engine": "cyllama.chat"}
    wrong = [
        f"{module.name}:{each.line} imports {each.module}"
        for module in modules().values()
        for each in module.imports()
        if module.room in apart and f"{each.module}.".startswith(f"{apart[module.room]}.")
    ]
    assert wrong == []


def test_no_modules_import_each_other_not_even_for_type_checkers():
    graph = {module.name: {each.module for each in module.imports()} - {module.name} for module in modules().values()}
    assert circle(graph) == []


def test_types_come_from_below_as_well():
    wrong = [
        f"{module.name}:{each.line} imports {each.module}"
        for module in modules().values()
        for each in module.imports()
        if is_ours(each.module) and each.for_types_only and layer(each.module) > layer(module.name)
        if (module.name, each.module) not in TYPES_FROM_ABOVE
    ]
    assert wrong == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(module: Module) -> set[str]:
    """Return the private names that a module defines: functions, classes, variables, fields and attributes."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def outside_names(module: Module) -> set[str]:
    """Return the names that stand for modules of other packages, such as ``sys``."""
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if not is_ours(alias.name)
    }


def private_accesses(module: Module, own: set[str]) -> list[str]:
    """Return where a module uses a private name that its room, whose private names are given, does not define."""
    outside = outside_names(module)
    found = [
        f"{module.name}:{node.lineno} uses {ast.unparse(node)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
        if node.attr not in own | NAMED_TUPLES
        if not re.match(r"(self|cls|super\(\))$", base := ast.unparse(node.value)) and base not in outside
    ]
    found += [
        f"{module.name}:{each.line} imports {each.name} of {each.module}"
        for each in module.imports()
        if each.name is not None and is_private(each.name) and is_ours(each.module)
        if not f"{each.module}.".startswith(f"{module.room}.")
    ]
    return found


def test_no_room_uses_private_members_of_another_one():
    own: dict[str, set[str]] = {}
    for module in modules().values():
        own.setdefault(module.room, set()).update(private_names(module))
    wrong = [access for module in modules().values() for access in private_accesses(module, own[module.room])]
    assert wrong == []
