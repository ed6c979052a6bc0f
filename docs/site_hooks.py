"""Hooks of the documentation site: pages that lie outside docs/, and the API reference.

GitHub shows README.md, ARCHITECTURE.md and the like at the top of the repository, so they stay
there. Here they become pages of the site, and links to any other file of the repository become
links to a copy of it.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "baselines/published/README.md": "published.md",
}
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def reference_pages() -> dict[str, str]:
    """The path of each page of the reference, and its text: one page a package, one for the rest.

    A module whose name begins with an underscore is private and left out.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "dreamer").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1].startswith("_"):
            continue
        found.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return {
        f"reference/{package}.md": f"# {package}\n\n"
        + "".join(f"::: {module}\n\n" for module in modules)
        for package, modules in found.items()
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the reference to the navigation."""
    assert config.nav is not None
    config.nav.append({"API reference": list(reference_pages())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/, the files that pages link to, and the reference."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relink(text, source, page)))
    for page, text in reference_pages().items():
        files.append(File.generated(config, page, content=text))
    texts = {source: (ROOT / source).read_text(encoding="utf-8") for source in PAGES}
    docs = ROOT / "docs"
    texts |= {f"docs/{p.name}": p.read_text(encoding="utf-8") for p in docs.glob("*.md")}
    for source in sorted({link for name, text in texts.items() for link in _outside(text, name)}):
        files.append(File.generated(config, _copy(source), abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Points the links of a page in docs/ that lead out of it to their places in the site."""
    source = page.file.src_uri
    if source in PAGES.values() or source.startswith("reference/"):
        return markdown
    return _relink(markdown, f"docs/{source}", source)


def _targets(text: str, source: str) -> list[str]:
    """The files of the repository that a page links to, as paths from its top."""
    links = [match[2] for match in _LINK.finditer(text) if "://" not in match[2]]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(source), x)) for x in links]


def _outside(text: str, source: str) -> list[str]:
    """Those of its targets that are neither in docs/ nor pages; of a folder, nothing is copied."""
    return [
        target
        for target in _targets(text, source)
        if not target.startswith("docs/") and target not in PAGES and (ROOT / target).is_file()
    ]


def _copy(source: str) -> str:
    """Where the site keeps a file of the repository, as plain text."""
    return f"source/{source}.txt"


def _relink(text: str, source: str, page: str) -> str:
    """The text of a page with its links to the repository's files made those of the site."""

    def place(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if target in PAGES:
            target = PAGES[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        elif (ROOT / target).is_file():
            target = _copy(target)
        else:
            return match[0]  # nothing there: the strict build says so
        return match[1] + os.path.relpath(target, posixpath.dirname(page) or ".") + match[3]

    return _LINK.sub(place, text)
