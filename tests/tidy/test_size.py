"""A module fits into one sitting, a function onto one screen."""

import ast

from tests.tidy.sources import ROOT, modules

MODULE_LINES = 400
FUNCTION_LINES = 70


def function_lengths(tree: ast.Module) -> dict[str, int]:
    """Lines of each function, from `def` to its end, docstring included, by `name:line`."""
    return {
        f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_module_is_longer_than_its_limit() -> None:
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path, _ in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_no_function_is_longer_than_its_limit() -> None:
    too_long = [
        f"{path}:{name} has {lines} lines"
        for path, tree in modules()
        for name, lines in function_lengths(tree).items()
        if lines > FUNCTION_LINES
    ]
    assert too_long == []


def test_the_length_of_a_function_counts_all_of_its_lines() -> None:
    tree = ast.parse('class A:\n    def f(self):\n        """Says."""\n\n        return 1\n\nasync def g(): ...\n')
    assert function_lengths(tree) == {"f:2": 4, "g:7": 1}
