"""The part of Lua that a simulated 2600 understands: from the text of a chunk to its statements."""

import re
from functools import lru_cache
from typing import Any

Tree = tuple[Any, ...]

_TOKEN = re.compile(
    r"""\s*(?:--[^\n]*\s*)*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<sign>==|~=|<=|>=|\.\.|[-+*/^\#<>=(){}\[\],;.])
    |(?P<end>$))""",
    re.VERBOSE,
)
_WORDS = frozenset(
    {"and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "local"}
    | {"nil", "not", "or", "return", "then", "true", "while"}
)
_CLOSING = ("end", "else", "elseif", "")
_PRIORITY = {
    "or": 1, "and": 2, "<": 3, ">": 3, "<=": 3, ">=": 3, "~=": 3, "==": 3,
    "..": 4, "+": 5, "-": 5, "*": 6, "/": 6, "^": 8,
}  # fmt: skip
_UNARY_PRIORITY = 7


class TspError(Exception):
    """An entry for the error queue."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def runtime_error(text: str) -> TspError:
    """Return the error of a statement that cannot be done."""
    return TspError(-286, f"TSP Runtime error at line 1: {text}")


# --- from text to trees ------------------------------------------------------------------------


class Parser:
    """Reads one chunk.

    Parameters
    ----------
    text
        Of the whole chunk.
    """

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._unexpected(text[position:].strip()[:20])
            position = found.end()
            if found.lastgroup not in (None, "end"):
                self._tokens.append((str(found.lastgroup), found[found.lastgroup or 0]))
        self._next = 0

    @staticmethod
    def _unexpected(near: str) -> TspError:
        return TspError(-285, f"TSP Syntax error at line 1: unexpected symbol near `{near}'")

    def chunk(self) -> list[Tree]:
        """Return the statements."""
        block = self._block()
        if self._peek():
            raise self._unexpected(self._peek())
        return block

    # --- tokens

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        text = self._peek()
        self._next += 1
        return text

    def _is(self, *texts: str) -> bool:
        if self._kind() != "text" and self._peek() in texts:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._is(text):
            raise TspError(
                -285, f"TSP Syntax error at line 1: `{text}' expected near `{self._peek()}'"
            )

    def _name(self) -> str:
        if self._kind() != "name" or self._peek() in _WORDS:
            raise self._unexpected(self._peek())
        return self._take()

    # --- statements

    def _block(self) -> list[Tree]:
        statements: list[Tree] = []
        while self._peek() not in _CLOSING:
            if not self._is(";"):
                statements.append(self._statement())
        return statements

    def _body(self) -> list[Tree]:
        block = self._block()
        self._expect("end")
        return block

    def _statement(self) -> Tree:
        word = self._peek()
        reader = getattr(self, f"_read_{word}", None) if word in _WORDS else None
        if reader is not None:
            self._take()
            tree: Tree = reader()
            return tree
        return self._plain()

    def _plain(self) -> Tree:
        """Read a call or an assignment."""
        first = self._suffixed()
        if first[0] == "call":
            return ("do_call", first)
        targets = [first]
        while self._is(","):
            targets.append(self._suffixed())
        self._expect("=")
        return ("assign", targets, self._expressions())

    def _read_local(self) -> Tree:
        names = [self._name()]
        while self._is(","):
            names.append(self._name())
        return ("local", names, self._expressions() if self._is("=") else [])

    def _read_function(self) -> Tree:
        target: Tree = ("name", self._name())
        while self._is("."):
            target = ("index", target, ("value", self._name()))
        return ("assign", [target], [self._function()])

    def _read_if(self) -> Tree:
        branches = []
        condition = self._expression()
        self._expect("then")
        branches.append((condition, self._block()))
        while self._is("elseif"):
            condition = self._expression()
            self._expect("then")
            branches.append((condition, self._block()))
        if self._is("else"):
            branches.append((("value", True), self._block()))
        self._expect("end")
        return ("if", branches)

    def _read_while(self) -> Tree:
        condition = self._expression()
        self._expect("do")
        return ("while", condition, self._body())

    def _read_for(self) -> Tree:
        name = self._name()
        self._expect("=")
        bounds = self._expressions()
        self._expect("do")
        return ("for", name, bounds, self._body())

    def _read_do(self) -> Tree:
        return ("if", [(("value", True), self._body())])

    def _read_return(self) -> Tree:
        return ("return", [] if self._peek() in _CLOSING else self._expressions())

    def _read_break(self) -> Tree:
        return ("break",)

    # --- expressions

    def _expressions(self) -> list[Tree]:
        found = [self._expression()]
        while self._is(","):
            found.append(self._expression())
        return found

    def _expression(self, above: int = 0) -> Tree:
        if self._kind() != "text" and self._peek() in ("not", "-", "#"):
            left: Tree = ("unary", self._take(), self._expression(_UNARY_PRIORITY))
        else:
            left = self._simple()
        while self._kind() != "text" and _PRIORITY.get(self._peek(), 0) > above:
            sign = self._take()
            left = ("binary", sign, left, self._expression(_PRIORITY[sign]))
        return left

    def _simple(self) -> Tree:
        kind, word = self._kind(), self._peek()
        if kind == "number":
            return ("value", float(self._take()))
        if kind == "text":
            return ("value", self._take()[1:-1])
        if word in ("nil", "true", "false"):
            return ("value", {"nil": None, "true": True, "false": False}[self._take()])
        if self._is("function"):
            return self._function()
        if self._is("{"):
            return self._table()
        return self._suffixed()

    def _function(self) -> Tree:
        names = []
        self._expect("(")
        while not self._is(")"):
            names.append(self._name())
            self._is(",")
        return ("function", names, self._body())

    def _table(self) -> Tree:
        items = []
        while not self._is("}"):
            items.append(self._expression())
            self._is(",")
        return ("table", items)

    def _suffixed(self) -> Tree:
        if self._is("("):
            tree = self._expression()
            self._expect(")")
        else:
            tree = ("name", self._name())
        while True:
            if self._is("."):
                tree = ("index", tree, ("value", self._name()))
            elif self._is("["):
                tree = ("index", tree, self._expression())
                self._expect("]")
            elif self._is("("):
                arguments = [] if self._peek() == ")" else self._expressions()
                self._expect(")")
                tree = ("call", tree, arguments)
            else:
                return tree


@lru_cache(maxsize=1024)
def parse(text: str) -> list[Tree]:
    """Return the statements of a chunk; nobody may change them.

    Raises
    ------
    TspError
        It is no chunk.
    """
    return Parser(text).chunk()
