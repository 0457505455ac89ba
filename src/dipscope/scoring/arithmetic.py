r"""A small parser and evaluator of formulas, the second opinion that `numeric` goes by.

It shares nothing with math-verify or sympy. Grammar (LaTeX and plain spelling alike):
sum = ["+"|"-"] product (("+"|"-") product)*; product = power (["*"|"/"] power)*, juxtaposition multiplies;
power = atom ("!"|"%")* ["^" argument]; atom = number, letter, constant, group, \frac, \sqrt, function.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

LONGEST, DEEPEST = 600, 40  # characters, nested groups
LARGEST = 400  # of an exact exponent or a factorial
BITS = 4000  # of an exact value

Value = Fraction | complex
Node = tuple[Any, ...]  # ("num", Fraction) | ("var", name) | (operator, Node, …)

_TOKEN = re.compile(
    r"\s*(?:(?P<num>\d+(?:\.\d+)?|\.\d+)|(?P<cmd>\\[a-zA-Z]+|\\[{}|%])|"
    r"(?P<name>sqrt|arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|exp|log|ln|pi|abs)(?![a-zA-Z])|"
    r"(?P<sub>[a-zA-Z]_(?:\w|\{\w{1,8}\}))|(?P<let>[a-zA-Z])|(?P<op>\*\*|[-+*/^(){}\[\]|!%_]))"
)
_DROPPED = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|q?quad)(?![a-zA-Z])|\\[,;:! ]|\$|~"
    r"|\^\s*(?:\\circ|\{\s*\\circ\s*\})"
)
_GREEK = {
    "alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "phi", "varphi", "rho", "sigma", "omega",
    "tau", "varepsilon", "epsilon",
}  # fmt: skip
_TIMES, _OVER = {"\\cdot", "\\times", "*", "\\ast"}, {"/", "\\div"}
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh,
    "tanh": cmath.tanh, "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "exp": cmath.exp,
    "ln": cmath.log, "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z),
    "csc": lambda z: 1 / cmath.sin(z),
}  # fmt: skip
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


class Unreadable(ValueError):
    """The text is not in the grammar, or its value is out of bounds."""


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise Unreadable("too long")
        self.tokens: list[tuple[str, str]] = []
        text, at = _DROPPED.sub(" ", text).rstrip(), 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise Unreadable(text[at : at + 10])
            self.tokens.append((str(found.lastgroup), found[0].strip()))
            at = found.end()
        self.at = self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{wanted or 'more'} expected")
        self.at += 1
        return token

    def whole(self) -> Node:
        node = self.sum()
        if self.at < len(self.tokens):
            raise Unreadable(self.peek())
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("nested too deep")
        node: Node = ("neg", self.product()) if self._sign() else self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            node = (sign, node, self.product())
        self.depth -= 1
        return node

    def _sign(self) -> bool:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        return negative

    def product(self) -> Node:
        node = self.power()
        while True:
            token = self.peek()
            if token in _TIMES or token in _OVER:
                self.take()
                operator = "*" if token in _TIMES else "/"
                node = (operator, node, ("neg", self.power()) if self._sign() else self.power())
            elif self.starts():
                before = self.tokens[self.at - 1][0], node[0]
                right = self.power()
                # 3\frac12 is a mixed number
                mixed = before == ("num", "num") and token == "\\frac" and right[0] == "/" and _whole(node)
                node = ("+" if mixed and _proper(right) else "*", node, right)
            else:
                return node

    def starts(self) -> bool:
        """Whether a factor starts here, so that juxtaposition multiplies."""
        if self.kind() in ("num", "name", "sub", "let"):
            return not (self.kind() == "num" and self.at and self.tokens[self.at - 1][0] == "num")
        if self.peek() in ("\\rfloor", "\\rceil"):
            return False
        return self.peek() in ("(", "{", "[") or (self.kind() == "cmd" and self.peek()[1:].isalpha())

    def power(self) -> Node:
        node = self.atom()
        while self.peek() in ("!", "%", "\\%"):
            node = ("!" if self.take() == "!" else "%", node)
        if self.peek() in ("^", "**"):
            self.take()
            node = ("^", node, self.argument())
            if self.peek() == "!":
                raise Unreadable("factorial of a power")
        return node

    def argument(self) -> Node:
        """A group, or a single digit, letter or command, as TeX takes it; outside TeX a whole number."""
        if self.peek() == "-":
            self.take()
            return ("neg", self.argument())
        return self.atom()

    def group(self, closing: str) -> Node:
        node = self.sum()
        self.take(closing)
        return node

    def atom(self) -> Node:
        kind, token = self.kind(), self.take()
        if kind == "num":
            return ("num", Fraction(token))
        if kind == "let":
            return {"e": ("const", "e"), "i": ("const", "i")}.get(token, ("var", token))
        if kind == "sub":
            return ("var", token.replace("{", "").replace("}", ""))
        closing = {"(": ")", "{": "}", "[": "]"}.get(token)
        if closing:
            return self.group(closing)
        if token == "|":
            return ("abs", self.group("|"))
        name = token.lstrip("\\")
        if name == "pi":
            return ("const", "pi")
        if name in _GREEK:
            return ("var", name)
        if name in ("frac", "dfrac", "tfrac"):
            return ("/", self._digit(), self._digit())
        if name in ("binom", "dbinom", "tbinom"):
            return ("binom", self._digit(), self._digit())
        if name == "sqrt":
            return self._root(token)
        if name == "abs":
            self.take("(")
            return ("abs", self.group(")"))
        if name in ("lfloor", "lceil"):
            return (name, self.group("\\r" + name[1:]))
        if name == "log":
            return self._logarithm()
        if name in _FUNCTIONS:
            return self._function(name)
        raise Unreadable(token)

    def _digit(self) -> Node:
        r"""An argument of \frac: of several digits in a row it takes the first."""
        if self.kind() == "num" and len(self.peek()) > 1:
            token = self.peek()
            if "." in token:
                raise Unreadable(token)
            self.tokens[self.at : self.at + 1] = [("num", token[0]), ("num", token[1:])]
        return self.atom()

    def _root(self, token: str) -> Node:
        if token.startswith("\\") and self.peek() == "[":
            self.take()
            degree = self.group("]")
            return ("^", self.atom(), ("/", ("num", Fraction(1)), degree))
        return ("sqrt", self._digit() if token.startswith("\\") else self.atom())

    def _logarithm(self) -> Node:
        if self.peek() != "_":
            return ("log", self._operand())
        self.take()
        base = self._digit()
        return ("/", ("ln", self._operand()), ("ln", base))

    def _function(self, name: str) -> Node:
        exponent: Node | None = None
        if self.peek() == "^":
            self.take()
            exponent = self.argument()
        if exponent == ("neg", ("num", Fraction(1))):
            if name not in _INVERSE:
                raise Unreadable(name)
            return (_INVERSE[name], self._operand())
        node = (name, self._operand())
        return node if exponent is None else ("^", node, exponent)

    def _operand(self) -> Node:
        r"""What a function applies to: a group, or the factors up to the next function (`\sin 2x \cos y`)."""
        if self.peek() in ("(", "{", "["):
            return self.power()
        node = self.power()
        while self.kind() in ("let", "sub") or self.peek() in ("\\pi", "\\frac") or self.peek()[1:] in _GREEK:
            node = ("*", node, self.power())
        return node


def _whole(node: Node) -> bool:
    return bool(node[0] == "num" and node[1].denominator == 1)


def _proper(node: Node) -> bool:
    return all(_whole(part) for part in node[1:])


def parse(text: str) -> Node:
    """The tree of a formula.

    Raises:
        Unreadable: it is not in the grammar, too long or nested too deep.
    """
    return _Parser(text).whole()


def variables(node: Node) -> set[str]:
    """Names of the variables in a tree."""
    if node[0] == "var":
        return {node[1]}
    return set().union(*(variables(part) for part in node[1:] if isinstance(part, tuple)))


def uses(node: Node, operator: str) -> bool:
    """Whether an operator stands anywhere in a tree."""
    return node[0] == operator or any(uses(part, operator) for part in node[1:] if isinstance(part, tuple))


def value(node: Node, at: Mapping[str, complex]) -> Value:
    """Value of a tree where variables have the values `at`: exact (Fraction) where it is rational.

    Raises:
        Unreadable: undefined there, or too large.
    """
    try:
        found = _value(node, at)
    except (ArithmeticError, ValueError, KeyError) as error:
        raise Unreadable(type(error).__name__) from None
    if isinstance(found, complex) and not (cmath.isfinite(found) and abs(found) < 1e150):
        raise Unreadable("out of bounds")
    return found


def _value(node: Node, at: Mapping[str, complex]) -> Value:
    operator = node[0]
    if operator == "num":
        return node[1]  # type: ignore[no-any-return]
    if operator == "var":
        return at[node[1]]
    if operator == "const":
        return {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}[node[1]]
    parts = [_value(part, at) for part in node[1:]]
    one = parts[0]
    if operator == "neg":
        return -one
    if operator == "%":
        return one / 100
    if operator in ("+", "-", "*", "/", "^"):
        return _bounded(_binary(operator, one, parts[1]))
    if operator in ("!", "binom"):
        return _counting(parts)
    if operator == "sqrt":
        return _sqrt(one)
    if operator == "abs":
        return abs(one) if isinstance(one, Fraction) else complex(abs(one))
    if operator in ("lfloor", "lceil"):
        real = one if isinstance(one, Fraction) else Fraction(complex(one).real)
        return Fraction(math.floor(real) if operator == "lfloor" else math.ceil(real))
    if operator == "log":
        return cmath.log10(complex(one))
    return _FUNCTIONS[operator](complex(one))


def _binary(operator: str, one: Value, other: Value) -> Value:
    if operator == "^":
        return _power(one, other)
    if isinstance(one, complex) or isinstance(other, complex):
        one, other = complex(one), complex(other)
    if operator == "+":
        return one + other
    if operator == "-":
        return one - other
    return one * other if operator == "*" else one / other


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) > LARGEST or size * abs(exponent) > BITS:
            raise Unreadable("out of bounds")
        return base ** int(exponent)
    return complex(base) ** complex(exponent)


def _counting(parts: list[Value]) -> Fraction:
    whole = [int(p) for p in parts if isinstance(p, Fraction) and p.denominator == 1 and 0 <= p <= LARGEST]
    if len(whole) != len(parts):
        raise Unreadable("out of bounds")
    return Fraction(math.factorial(whole[0]) if len(whole) == 1 else math.comb(whole[0], whole[1]))


def _sqrt(one: Value) -> Value:
    if isinstance(one, Fraction) and one >= 0:
        above, below = math.isqrt(one.numerator), math.isqrt(one.denominator)
        if above**2 == one.numerator and below**2 == one.denominator:
            return Fraction(above, below)
    return cmath.sqrt(complex(one))


def _bounded(found: Value) -> Value:
    if isinstance(found, Fraction):
        bits = max(found.numerator.bit_length(), found.denominator.bit_length())
        if bits > 2 * BITS:
            raise Unreadable("out of bounds")
    return found
