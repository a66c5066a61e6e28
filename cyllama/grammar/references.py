"""What the references of a schema refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

_MAX_PARTS = 20_000
_DEFINITIONS = ("$defs", "definitions")
_OLD_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07")


def escape(key: str) -> str:
    """Return a key as it is written in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


class References:
    """The places in one schema that have names.

    Args:
        root: The schema.
        tolerant: Whether a definition is also found by the last part of a pointer that leads nowhere.
    """

    def __init__(self, root: object, *, tolerant: bool) -> None:
        self._root = root
        self._tolerant = tolerant
        self._by_address: dict[str, tuple[object, str]] | None = None
        self._by_name: dict[str, tuple[object, str]] = {}
        draft = root.get("$schema") if isinstance(root, Mapping) else None
        #: Whether keywords beside a reference have no meaning: until 2019 they had none.
        self.ignores_siblings = isinstance(draft, str) and any(old in draft for old in _OLD_DRAFTS)

    def resolve(self, reference: object) -> tuple[object, str] | None:
        """Return what is at a reference, and its JSON pointer; ``None`` if there is nothing."""
        if not isinstance(reference, str):
            return None
        if reference in ("", "#"):
            return self._root, "#"
        if reference.startswith("#/"):
            found = self._at(self._root, "#", reference[1:])
            return found or (self._named(reference) if self._tolerant else None)
        self._index()
        assert self._by_address is not None
        address, fragment = urldefrag(reference)
        found = self._by_address.get(reference)
        if found is None and fragment and address in self._by_address:
            target, place = self._by_address[address]
            found = self._at(target, place, fragment if fragment.startswith("/") else "/")
        return found or (self._named(reference) if self._tolerant else None)

    def _named(self, reference: str) -> tuple[object, str] | None:
        self._index()
        return self._by_name.get(unquote(reference.rpartition("/")[2]).removesuffix(".json"))

    @staticmethod
    def _at(node: Any, place: str, pointer: str) -> tuple[object, str] | None:
        """Follow a JSON pointer."""
        for part in pointer[1:].split("/") if pointer[1:] else ():
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, (list, tuple)) and key.isdecimal() and len(key) < 9 and int(key) < len(node):
                node = node[int(key)]
            else:
                return None
            place = f"{place}/{escape(key)}"
        return node, place

    def _index(self) -> None:
        """Find all identifiers, anchors and definitions, the nearest to the root first."""
        if self._by_address is not None:
            return
        addresses: dict[str, tuple[object, str]] = {}
        waiting: list[tuple[Any, str, str]] = [(self._root, "#", "")]
        seen: set[int] = set()
        for node, place, base in waiting:
            if id(node) in seen or len(waiting) > _MAX_PARTS:
                continue
            seen.add(id(node))
            if isinstance(node, Mapping):
                base = self._name(node, place, base, addresses)
            items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
            waiting += [
                (value, f"{place}/{escape(str(key))}", base)
                for key, value in items
                if isinstance(value, (Mapping, list))
            ]
        self._by_address = addresses

    def _name(self, node: Mapping[Any, Any], place: str, base: str, addresses: dict[str, tuple[object, str]]) -> str:
        """Remember the names of a schema; return the address that references in it are relative to."""
        for key in ("$id", "id"):
            if isinstance(node.get(key), str):
                for address in (node[key], urljoin(base, node[key])):
                    addresses.setdefault(address.rstrip("#"), (node, place))
                base = urljoin(base, node[key])
                break
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(node.get(key), str):
                for address in (f"#{node[key]}", f"{urldefrag(base)[0]}#{node[key]}"):
                    addresses.setdefault(address, (node, place))
        for key in _DEFINITIONS:
            if isinstance(node.get(key), Mapping):
                for name, value in node[key].items():
                    self._by_name.setdefault(str(name), (value, f"{place}/{key}/{escape(str(name))}"))
        return base
