"""Wrong programs made from right ones, one place changed in each."""

import ast
import copy
from collections.abc import Iterator


def _nothing(node: ast.AST) -> bool:
    """A function returns None."""
    if not isinstance(node, ast.FunctionDef):
        return False
    node.body = [ast.Return(ast.Constant(None))]
    return True


def _off_by_one(node: ast.AST) -> bool:
    """An integer is one more."""
    if not isinstance(node, ast.Constant) or type(node.value) is not int:
        return False
    node.value += 1
    return True


def _comparison(node: ast.AST) -> bool:
    """A comparison takes or leaves its boundary, or is turned round."""
    swaps = {
        ast.Lt: ast.LtE,
        ast.LtE: ast.Lt,
        ast.Gt: ast.GtE,
        ast.GtE: ast.Gt,
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
    }
    if not isinstance(node, ast.Compare) or type(node.ops[0]) not in swaps:
        return False
    node.ops[0] = swaps[type(node.ops[0])]()
    return True


def _arithmetic(node: ast.AST) -> bool:
    """A sum becomes a difference, a product a sum, and so on."""
    swaps = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
    if not isinstance(node, ast.BinOp) or type(node.op) not in swaps:
        return False
    node.op = swaps[type(node.op)]()
    return True


def _condition(node: ast.AST) -> bool:
    """A condition is negated."""
    if not isinstance(node, (ast.If, ast.IfExp)):
        return False
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return True


KINDS = {
    "return None": _nothing,
    "off by one": _off_by_one,
    "comparison": _comparison,
    "arithmetic": _arithmetic,
    "condition": _condition,
}


def mutants(source: str, entry: str) -> Iterator[tuple[str, str]]:
    """One mutant of each kind that a program allows: (kind, program). The last place that fits is changed."""
    tree = ast.parse(source.replace("\r\n", "\n"))
    for kind, change in KINDS.items():
        mutant = copy.deepcopy(tree)
        nodes = list(ast.walk(mutant))
        if change is _nothing:
            nodes = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == entry]
        if any(change(node) for node in reversed(nodes)):
            yield kind, ast.unparse(ast.fix_missing_locations(mutant))
