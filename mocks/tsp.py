"""The part of Lua that a simulated 2600 runs: chunks of statements, functions, and no libraries.

A chunk is parsed as a whole before anything of it runs, as the instrument does. A function
that has to wait for the world suspends the chunk: whoever runs it, by `step`, decides when
it goes on.
"""

import math
import operator
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from mocks.tsp_parser import Tree, runtime_error

Values = list[Any]


class _Return(Exception):
    def __init__(self, values: Values) -> None:
        self.values = values


class _Break(Exception):
    pass


class Scope:
    """Names that are known in a block, and those around it."""

    def __init__(self, around: "Scope | None" = None) -> None:
        self.names: dict[str, Any] = {}
        self._around = around

    def of(self, name: str) -> "Scope":
        """Return the scope that holds a name; the outermost for one that nobody holds."""
        scope = self
        while name not in scope.names and scope._around is not None:
            scope = scope._around
        return scope


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, float):
        raise runtime_error(f"attempt to perform arithmetic on a {type_name(value)} value")
    return value


def type_name(value: Any) -> str:
    """Return Lua's name of a value's type."""
    names = {type(None): "nil", bool: "boolean", float: "number", str: "string"}
    return names.get(type(value), "function" if callable(value) else "table")


def _divide(a: float, b: float) -> float:
    return a / b if b else math.copysign(math.inf, a)


_ARITHMETIC: dict[str, Callable[[float, float], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide, "^": operator.pow,
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


def _true(value: Any) -> bool:
    return value is not None and value is not False


class Interpreter:
    """Runs chunks on the names of one instrument.

    Parameters
    ----------
    builtins
        Names that are there from the start.
    """

    def __init__(self, builtins: dict[str, Any]) -> None:
        self._globals = Scope()
        self._globals.names.update(builtins)

    async def run(self, block: list[Tree]) -> None:
        """Run a parsed chunk."""
        try:
            await self._block(block, Scope(self._globals))
        except _Return:
            return

    async def _block(self, block: list[Tree], scope: Scope) -> None:
        for statement in block:
            await getattr(self, f"_do_{statement[0]}")(scope, *statement[1:])

    # --- statements

    async def _do_do_call(self, scope: Scope, call: Tree) -> None:
        await self._values([call], scope)

    async def _do_local(self, scope: Scope, names: list[str], trees: list[Tree]) -> None:
        values = await self._values(trees, scope)
        values += [None] * len(names)
        scope.names.update(zip(names, values, strict=False))

    async def _do_assign(self, scope: Scope, targets: list[Tree], trees: list[Tree]) -> None:
        values = await self._values(trees, scope) + [None] * len(targets)
        for target, value in zip(targets, values, strict=False):
            if target[0] == "name":
                scope.of(target[1]).names[target[1]] = value
                continue
            holder = await self._value(target[1], scope)
            self._set(holder, await self._value(target[2], scope), value)

    async def _do_if(self, scope: Scope, branches: list[tuple[Tree, list[Tree]]]) -> None:
        for condition, block in branches:
            if _true(await self._value(condition, scope)):
                await self._block(block, Scope(scope))
                return

    async def _do_while(self, scope: Scope, condition: Tree, block: list[Tree]) -> None:
        while _true(await self._value(condition, scope)):
            try:
                await self._block(block, Scope(scope))
            except _Break:
                return

    async def _do_for(self, scope: Scope, name: str, bounds: list[Tree], block: list[Tree]) -> None:
        at, stop, *step = [_number(value) for value in await self._values(bounds, scope)]
        by = step[0] if step else 1.0
        while (at <= stop) if by > 0 else (at >= stop):
            inner = Scope(scope)
            inner.names[name] = at
            try:
                await self._block(block, inner)
            except _Break:
                return
            at += by

    async def _do_return(self, scope: Scope, trees: list[Tree]) -> None:
        raise _Return(await self._values(trees, scope))

    async def _do_break(self, _scope: Scope) -> None:
        raise _Break

    # --- expressions

    async def _values(self, trees: list[Tree], scope: Scope) -> Values:
        """Return the values of a list; a call at its end gives all that it returns."""
        values: Values = []
        for i, tree in enumerate(trees):
            found = await self._all(tree, scope)
            values += found if i == len(trees) - 1 else [*found, None][:1]
        return values

    async def _value(self, tree: Tree, scope: Scope) -> Any:
        return [*await self._all(tree, scope), None][0]

    async def _all(self, tree: Tree, scope: Scope) -> Values:
        found: Values = await getattr(self, f"_of_{tree[0]}")(scope, *tree[1:])
        return found

    async def _of_value(self, _scope: Scope, value: Any) -> Values:
        return [value]

    async def _of_name(self, scope: Scope, name: str) -> Values:
        return [scope.of(name).names.get(name)]

    async def _of_index(self, scope: Scope, holder: Tree, key: Tree) -> Values:
        found = await self._value(holder, scope)
        if found is None or isinstance(found, bool | float | str):
            name = holder[1] if holder[0] == "name" else holder[-1][-1]
            kind = "global" if holder[0] == "name" else "field"
            raise runtime_error(f"attempt to index {kind} `{name}' (a {type_name(found)} value)")
        return [found.get(await self._value(key, scope))]

    def _set(self, holder: Any, key: Any, value: Any) -> None:
        if isinstance(holder, dict):
            holder[key] = value
        elif hasattr(holder, "set"):
            holder.set(key, value)
        else:
            raise runtime_error(f"attempt to index a {type_name(holder)} value")

    async def _of_call(self, scope: Scope, function: Tree, trees: list[Tree]) -> Values:
        call = await self._value(function, scope)
        arguments = await self._values(trees, scope)
        if not callable(call):
            kind, name = ("global", function[1]) if function[0] == "name" else ("field", "?")
            raise runtime_error(f"attempt to call {kind} `{name}' (a {type_name(call)} value)")
        found: Values = await call(arguments)
        return found

    async def _of_function(self, scope: Scope, names: list[str], body: list[Tree]) -> Values:
        async def call(arguments: Values) -> Values:
            inner = Scope(scope)
            inner.names.update(zip(names, arguments + [None] * len(names), strict=False))
            try:
                await self._block(body, inner)
            except _Return as done:
                return done.values
            return []

        return [call]

    async def _of_table(self, scope: Scope, trees: list[Tree]) -> Values:
        values = await self._values(trees, scope)
        return [{float(i): value for i, value in enumerate(values, 1)}]

    async def _of_unary(self, scope: Scope, sign: str, tree: Tree) -> Values:
        value = await self._value(tree, scope)
        if sign == "not":
            return [not _true(value)]
        return [-_number(value) if sign == "-" else float(len(value))]

    async def _of_binary(self, scope: Scope, sign: str, left: Tree, right: Tree) -> Values:
        a = await self._value(left, scope)
        if sign in ("and", "or"):
            return [a if _true(a) is (sign == "or") else await self._value(right, scope)]
        b = await self._value(right, scope)
        if sign in ("==", "~="):
            same = type_name(a) == type_name(b) and a == b
            return [same is (sign == "==")]
        if sign == "..":
            return [f"{a}{b}"]
        return [_ARITHMETIC[sign](_number(a), _number(b))]


# --- suspending ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Why a chunk stands still, and until when at the latest."""

    until_ns: int
    for_trigger: bool


@types.coroutine
def suspend(why: Waiting) -> Generator[Waiting, bool, bool]:
    """Stand still until `step` is called again; return what it was told."""
    return (yield why)


@types.coroutine
def step(
    chunk: Coroutine[Any, Any, None],
    told: bool | None,  # noqa: FBT001 - handed on as it is
) -> Generator[Any, Any, Waiting | None]:
    """Let a chunk go on until it waits; None when it is over.

    What it awaits of the event loop is handed on; only `suspend` ends here.
    """
    answer: Any = told
    error: BaseException | None = None
    while True:
        try:
            request = chunk.send(answer) if error is None else chunk.throw(error)
        except StopIteration:
            return None
        if isinstance(request, Waiting):
            return request
        answer = error = None
        try:
            answer = yield request
        except BaseException as thrown:  # noqa: BLE001 - handed on to the chunk
            error = thrown
