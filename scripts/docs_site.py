"""Pages of the documentation site that are not files of docs/: a hook of mkdocs (mkdocs.yml).

- README, CONTRIBUTING and CHANGELOG are pages. A link to a file outside docs/ leads to its page of
  the API reference, or to a copy of the file in the site: the site needs no repository host.
- Each public module has a page of the API reference, written from its docstrings; each package has
  one with a table of its modules.

Modules are parsed, not imported.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGES = ("wm_nodes", "models/wm_models", "datasets/wm_datasets")
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the API reference to the navigation."""
    assert config.nav is not None
    config.nav.append({"Reference": [{Path(p).name: _nav(ROOT / p)} for p in PACKAGES]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, the API reference, and the files that pages link to."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for package in PACKAGES:
        for module in _modules(ROOT / package):
            files.append(File.generated(config, _reference(module), content=_page(module)))
    linked: set[Path] = set()
    for file in files.documentation_pages():
        source = ROOT / _path(file.src_uri)
        if source.is_file():
            linked |= {
                path for link in _links(source.read_text()) if (path := _target(source, link))
            }
    for path in sorted(linked):
        if files.get_file_from_path(uri := _uri(path)) is None:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links at the site's files."""
    source = ROOT / _path(page.file.src_uri)
    if not source.is_file():
        return markdown
    folder = posixpath.dirname(page.file.src_uri)

    def relinked(match: re.Match[str]) -> str:
        path = _target(source, match[0])
        return match[0] if path is None else posixpath.relpath(_uri(path), folder or ".")

    parts = FENCED.split(markdown)  # every second one is a code block
    parts[::2] = [LINK.sub(relinked, text) for text in parts[::2]]
    return "".join(parts)


def _links(text: str) -> Iterator[str]:
    for part in FENCED.split(text)[::2]:
        yield from LINK.findall(part)


def _target(source: Path, link: str) -> Path | None:
    """Return the file of this repository that a link names, None for any other link."""
    path = Path(posixpath.normpath(source.parent / link))
    return path if "://" not in link and path.is_file() else None


def _path(uri: str) -> str:
    """Return where a page of the site lies in the repository."""
    names = {page: name for name, page in PAGES.items()}
    return names.get(uri, f"docs/{uri}")


def _uri(path: Path) -> str:
    """Return where a file of the repository lies in the site."""
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if path.suffix == ".py" and name.startswith(PACKAGES):
        return _reference(path)
    return f"source/{name}"


# --- API reference --------------------------------------------------------------------------------


def _modules(folder: Path) -> Iterator[Path]:
    """Yield the public modules of a package, `__init__.py` for each package."""
    for path in sorted(folder.rglob("*.py")):
        if path.stem == "__init__" or not path.stem.startswith("_"):
            yield path


def _dotted(module: Path) -> list[str]:
    """Return the names of a module, from its package on."""
    parts = list(module.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ("models", "datasets"):
        parts = parts[1:]
    return parts[:-1] if parts[-1] == "__init__" else parts


def _reference(module: Path) -> str:
    page = "/".join(["reference", *_dotted(module)])
    if module.stem == "__init__":
        return f"{page}/index.md"
    return f"{page}{'_' if module.stem == 'index' else ''}.md"  # index.html is the package's


def _nav(folder: Path) -> list[Any]:
    """Return the navigation of a package: its own page, its packages, its modules."""
    nav: list[Any] = [_reference(folder / "__init__.py")]
    for child in sorted(folder.iterdir()):
        if (child / "__init__.py").is_file():
            nav.append({child.name: _nav(child)})
    for module in _modules(folder):
        if module.parent == folder and module.stem != "__init__":
            nav.append({module.stem: _reference(module)})
    return nav


def _page(module: Path) -> str:
    name = ".".join(_dotted(module))
    title = f"# {_dotted(module)[-1]}\n\n`{name}`\n\n"
    if module.stem != "__init__":
        return f"{title}::: {name}\n"
    rows = []
    for child in sorted(module.parent.iterdir()):
        file = child / "__init__.py" if child.is_dir() else child
        if file != module and file.suffix == ".py" and file.is_file() and child.stem[0] != "_":
            link = posixpath.relpath(_reference(file), posixpath.dirname(_reference(module)))
            summary = (_docstring(file).splitlines() or [""])[0].replace("|", "\\|")
            rows.append(f"| [{child.stem}]({link}) | {summary} |")
    table = "\n".join(["| module | |", "| --- | --- |", *rows]) if rows else ""
    return f"{title}{_docstring(module)}\n\n{table}\n"


def _docstring(module: Path) -> str:
    return ast.get_docstring(ast.parse(module.read_text())) or ""
