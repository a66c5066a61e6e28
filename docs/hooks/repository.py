"""A hook of MkDocs: pages and files of the repository that are outside of docs/.

A page links to the repository as GitHub shows it, by relative paths. In the site, the Markdown files named in PAGES
are pages of their own, and every other file that a page links to is copied to `source/`. A link to a file that does
not exist stays as it is: MkDocs reports it, and the build fails. It also fails if a page would load anything from
another host.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

#: Markdown files outside of docs/, and the pages that they become.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "llama.cpp/README.md": "llama-cpp.md",
    "cyllama/models/README.md": "tiny-chat.md",
    "training/README.md": "training.md",
}
_ORIGINS = {page: origin for origin, page in PAGES.items()}
_LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=.(?:https?:)?//[^\"'>]+")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]+)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that any page links to."""
    for origin, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / origin).read_text(encoding="utf-8")))
    for file in list(files.documentation_pages()):
        for target in _outside(file.src_uri, file.content_string):
            if f"source/{target}" not in files.src_uris:
                files.append(File.generated(config, f"source/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let the links of a page lead to the same files in the site."""

    def to_site(match: re.Match[str]) -> str:
        target = _target(page.file.src_uri, match[1])
        if target is None:
            return match[0]
        place = _place(target)
        return posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".") + (match[2] or "")

    return _LINK.sub(to_site, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if a page loads anything from another host."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if found := _LOADED.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page.relative_to(config.site_dir)} loads something from another host: {found[0]}")


def _target(page: str, link: str) -> str | None:
    """Return the file of the repository that a page links to, by its path there, or ``None``."""
    origin = _ORIGINS.get(page, f"docs/{page}")
    target = os.path.normpath(posixpath.join(posixpath.dirname(origin), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _place(target: str) -> str:
    """Return where a file of the repository is in the site."""
    if target in PAGES:
        return PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}"


def _outside(page: str, markdown: str) -> set[str]:
    """Return the files that a page links to, and that are neither pages nor in docs/."""
    targets = {_target(page, match[1]) for match in _LINK.finditer(markdown)}
    return {target for target in targets if target is not None and _place(target).startswith("source/")}
