"""Which rooms of the project may know of which: the table of CONTRIBUTING.md."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def statements(node):
    """The imports below a node that run, those inside functions too; others are for type checks."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    only_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in node.orelse if only_types else ast.iter_child_nodes(node):
        yield from statements(child)


def imported(folder):
    """(file, what it imports) of all files in a folder, without the standard library."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for statement in statements(ast.parse(path.read_text("utf-8"))):
            names = {alias.name for alias in statement.names}
            if isinstance(statement, ast.ImportFrom):
                assert statement.level == 0, f"{path} imports relative to where it is"
                names = {f"{statement.module}.{name}" for name in names}
            found |= {(path.relative_to(ROOT).as_posix(), name) for name in names}
    return {(file, name) for file, name in found if top(name) not in sys.stdlib_module_names}


def top(name):
    return name.split(".")[0]


def test_methods_know_of_tensors_and_maps_only():
    allowed = ("torch", "libra.reduction", "libra.errors", "libra.methods")
    found = imported("libra/methods")
    assert len(found) > 100
    assert not {
        (file, name)
        for file, name in found
        if not any(f"{name}.".startswith(f"{module}.") for module in allowed)
    }


@pytest.mark.parametrize(
    ("folder", "strangers", "exceptions"),
    [
        (
            "libra",
            {"viz", "page", "tiny", "benchmarks", "gradio", "matplotlib"},
            {("libra/cli.py", "viz")},  # inside the commands that draw
        ),
        ("viz", {"page", "tiny", "benchmarks", "gradio", "transformers"}, set()),
    ],
)
def test_engine_and_figures_know_nothing_of_what_is_built_on_them(folder, strangers, exceptions):
    found = {(file, top(name)) for file, name in imported(folder)}
    assert len(found) > 100
    assert {(file, room) for file, room in found if room in strangers} == exceptions


def test_every_module_of_the_engine_has_its_line_in_the_map():
    told = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    files = {f"libra/{path.name}" for path in (ROOT / "libra").glob("*.py")}
    absent = {file for file in files if f"`{file}`" not in told}
    assert absent == {"libra/__init__.py", "libra/__main__.py"}
    assert all((ROOT / name).exists() for name in re.findall(r"`(libra/[\w/.]+)`", told))
