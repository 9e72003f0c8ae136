"""Whether code takes anything out of a container, as its bytecode tells on each interpreter."""

import asyncio
import functools
import sys
from collections import deque
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import pytest

from stanch.agent.removers import NOTHING, Uses, uses_in, uses_of


def codes_of(source: str) -> list[CodeType]:
    """All code objects of a source text."""
    found = [compile(source, "app.py", "exec")]
    for code in found:
        found += [one for one in code.co_consts if isinstance(one, CodeType)]
    return found


KEEPS = [
    "def f(k, v): SESSIONS[k] = v",
    "def f(k, v): SESSIONS[g(k, 1)] = v",
    "def f(v):\n for x in v: SESSIONS.append(x)",
    "def f(v): SESSIONS.setdefault(v, []).append(v)",
    "def f(v):\n if v not in SESSIONS and len(SESSIONS) < 9: SESSIONS.add(v)\n return v in {1}",
    "def f():\n return [x for x in SESSIONS], SESSIONS.get(3), sorted(SESSIONS), SESSIONS[1:2]",
    "class A:\n def __init__(self): self.SESSIONS = []\n def f(self, v): self.SESSIONS.append(v)",
    "class A:\n SESSIONS = []\n def f(self): self.SESSIONS += [1]",
    "def f():\n SESSIONS = []\n def g(x): SESSIONS.append(x)\n return g",
    "SESSIONS = {}\ndef f(a):\n with a: SESSIONS[a.b] = dict(a=a)",
]
TAKES = [
    "def f(k): SESSIONS.pop(k, None)",
    "def f(k): del SESSIONS[k]",
    "def f():\n global SESSIONS\n SESSIONS = {}",
    "class A:\n def f(self): self.SESSIONS = []",
    "class A:\n def f(self): del self.SESSIONS[:-5]",
    "class A:\n def f(self): self.SESSIONS[:] = []",
    "def f():\n all = SESSIONS\n while all: all.popitem()",
    "def f(): INBOX.get(); SESSIONS.put(1)",
    "def f(v): v.add_done_callback(SESSIONS.discard)",
    "def f(k, v):\n SESSIONS[k] = v\n for old in list(SESSIONS): drop(SESSIONS, old)\n evict.pop()",
    "class A:\n def f(self): self.SESSIONS -= {1}",
]
OPEN = [
    "def f(): trim(SESSIONS, 100)",
    "def f(): return SESSIONS",
    "def f(): self.owner = SESSIONS",
]


@pytest.mark.parametrize(
    ("source", "expected"),
    [(one, False) for one in KEEPS]
    + [(one, True) for one in TAKES]
    + [(one, None) for one in OPEN],
)
def test_what_a_function_does_to_a_container(source: str, expected: bool | None) -> None:
    """Adding and reading keep, any removal takes, handing it on says nothing."""
    assert uses_in("SESSIONS", codes_of(source)).removed is expected


def test_one_removal_anywhere_decides_and_nothing_says_nothing() -> None:
    """A function that keeps and one that takes: it is taken out of; unnamed, nobody can tell."""
    both = codes_of(KEEPS[0]) + codes_of(OPEN[0]) + codes_of(TAKES[0])
    assert uses_in("SESSIONS", both).removed is True
    assert uses_in("SESSIONS", codes_of(KEEPS[0]) + codes_of(OPEN[0])).removed is None
    assert uses_in("OTHER", codes_of(KEEPS[0])) == NOTHING


def made(source: str, name: str = "f", **more: Any) -> FunctionType:
    """A function of a source text, with names for it to use."""
    space: dict[str, Any] = {"SESSIONS": {}} | more
    exec(compile(source, "app.py", "exec"), space)
    function = space[name]
    assert isinstance(function, FunctionType)
    return function


REMOVALS = {
    "called": "def f(k): SESSIONS.pop(k, None)",
    "swept": "def f(k):\n for old in list(SESSIONS):\n  if old < 0: del SESSIONS[old]",
    "attribute": "def f(k): SHELF.rows.discard(k)",
}


@pytest.mark.parametrize("source", REMOVALS.values(), ids=list(REMOVALS))
def test_code_that_would_take_out_is_known_to_have_run_or_not(source: str) -> None:
    """Before its first run it has not; after eight it has, whether or not anything was there."""

    class Shelf:
        rows: ClassVar[set[int]] = set()

    function = made(source, SHELF=Shelf)
    name = "rows" if "rows" in source else "SESSIONS"
    assert uses_in(name, [function.__code__]) == Uses(True, False)
    for number in range(8):
        function(number)
    assert uses_in(name, [function.__code__]) == Uses(True, True)


def test_one_removal_that_has_run_is_enough() -> None:
    """Of two functions that would take out, one has run: it is tended."""
    idle, busy = made(REMOVALS["called"]), made(REMOVALS["swept"])
    for number in range(8):
        busy(number)
    assert uses_in("SESSIONS", [idle.__code__, busy.__code__]) == Uses(True, True)
    assert uses_in("SESSIONS", [idle.__code__]) == Uses(True, False)


def test_what_waits_to_go_on_has_run() -> None:
    """The loop of a sweeper that sleeps for an hour runs, though it has begun only once."""
    source = "async def f(wait):\n while True:\n  await wait()\n  SESSIONS.clear()"
    sweeping = made(source)
    code = sweeping.__code__
    assert uses_in("SESSIONS", [code]) == Uses(True, False)
    assert uses_in("SESSIONS", [code], running=[code]) == Uses(True, True)

    async def beside() -> Uses:
        task = asyncio.create_task(sweeping(asyncio.Event().wait))
        await asyncio.sleep(0)
        found = uses_of("shop/sweep.py module global SESSIONS", lambda file: False)
        task.cancel()
        return found

    assert asyncio.run(beside()) == Uses(True, True)


SIZED = [
    "def f(v):\n if len(SESSIONS) < 40: SESSIONS.append(v)",
    "def f(v, most):\n SESSIONS.append(v)\n if most <= len(SESSIONS): stop()",
    "class A:\n def f(self, v):\n  if len(self.SESSIONS) > self.n: return\n  self.SESSIONS.add(v)",
    "def f(v):\n size = len(SESSIONS)\n note(v)\n if size > 100: warn(size)",
]  # fmt: skip
NOT_SIZED = [
    "def f(v):\n if len(SESSIONS) > 0: SESSIONS.append(v)",
    "def f(v):\n if not len(SESSIONS): SESSIONS.append(v)",
    "def f(v):\n gauge(len(SESSIONS))\n if v < 3: SESSIONS.append(v)",
    "def f(v):\n if len(v) < 40: SESSIONS.append(v)",
    "def f(v):\n self.size = len(SESSIONS)\n if v == 3: SESSIONS.append(v)",
]


@pytest.mark.parametrize(
    ("source", "expected"), [(one, True) for one in SIZED] + [(one, False) for one in NOT_SIZED]
)
def test_code_that_keeps_to_a_bound_compares_a_length(source: str, *, expected: bool) -> None:
    """A comparison with the number of entries may be a bound; whether there are any is none."""
    assert uses_in("SESSIONS", codes_of(source)).sized is expected


def module_of(name: str, source: str, **more: Any) -> ModuleType:
    """A module of the application, made of a source text."""
    module = ModuleType(name)
    module.__file__ = f"/srv/shop/{name}.py"
    vars(module).update(more)
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


SHOP = """
SESSIONS, TOKENS, PAGES = {}, {}, {}
class ShopShelf:
    def __init__(self): self.rows = []; self.seen = set()
    def keep(self, row): self.rows.append(row); self.note(row)
    def note(self, row): self.seen.add(row)
    @staticmethod
    def forget(store): store.seen.clear()
def remember(k, v): SESSIONS[k] = v
def token(k, v): TOKENS[k] = v
@functools.lru_cache
def page(k): PAGES[k] = k
"""
JOBS = "def sweep(shop):\n for key in list(shop.TOKENS): del shop.TOKENS[key]"


def test_the_modules_of_the_application_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods, wrapped functions and other modules count; library code does not."""
    shop = module_of("shop", SHOP, functools=functools)
    monkeypatch.setitem(sys.modules, "shop", shop)
    monkeypatch.setitem(sys.modules, "jobs", module_of("jobs", JOBS))

    def is_own(file: str) -> bool:
        return file.startswith("/srv/shop/")

    assert uses_of("shop/shop.py module global SESSIONS", is_own).removed is False
    assert uses_of("shop/shop.py module global TOKENS", is_own).removed is True
    assert uses_of("shop/shop.py module global PAGES", is_own).removed is False
    assert uses_of("ShopShelf.rows", is_own).removed is False
    assert uses_of("ShopShelf.seen", is_own).removed is True
    assert uses_of("class attribute ShopShelf.rows", is_own).removed is False
    assert uses_of("default argument of remember", is_own).removed is None
    assert uses_of("local rows of running job (a.py:3)", is_own).removed is None


def test_a_container_of_the_standard_library_is_looked_at_there() -> None:
    """What a Queue keeps is taken out by its own get."""
    import queue

    assert isinstance(queue.Queue().queue, deque)
    assert uses_of("Queue.queue", lambda file: False).removed is True
