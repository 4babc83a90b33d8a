"""Figures of the code for docs/architecture.md: `python scripts/code_figures.py`."""

from __future__ import annotations

import ast
import statistics
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("wm_nodes", "models/wm_models", "datasets/wm_datasets")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines(node: Function | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def main() -> None:
    files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    functions: list[Function] = []
    classes: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for path in files:
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        sizes[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                classes[f"`{node.name}` in {name}"] = lines(node)
            elif isinstance(node, Function):
                functions.append(node)
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    typed = sum(function.returns is not None for function in functions)
    largest_file = max(sizes, key=lambda name: sizes[name])
    largest_class = max(classes, key=lambda name: classes[name])
    folder, most = folders.most_common(1)[0]
    rows = (
        ("files, lines", f"{len(files)}, {sum(sizes.values())}"),
        ("median function", f"{statistics.median(map(lines, functions)):.0f} lines"),
        ("largest file", f"{sizes[largest_file]} lines, {largest_file}"),
        ("largest class", f"{classes[largest_class]} lines, {largest_class}"),
        ("functions with a return type", f"{100 * typed / len(functions):.1f} %"),
        ("most files in one folder", f"{most}, {folder}"),
    )
    print("| figure | value |\n| --- | --- |")
    for row in rows:
        print("| {} | {} |".format(*row))


if __name__ == "__main__":
    main()
