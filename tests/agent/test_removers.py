"""Whether code takes anything out of a container, as its bytecode tells on each interpreter."""

import functools
import sys
from collections import deque
from types import CodeType, ModuleType
from typing import Any

import pytest

from stanch.agent.removers import removed_from, taken_out


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
    assert taken_out("SESSIONS", codes_of(source)) is expected


def test_one_removal_anywhere_decides_and_nothing_says_nothing() -> None:
    """A function that keeps and one that takes: it is taken out of; unnamed, nobody can tell."""
    both = codes_of(KEEPS[0]) + codes_of(OPEN[0]) + codes_of(TAKES[0])
    assert taken_out("SESSIONS", both) is True
    assert taken_out("SESSIONS", codes_of(KEEPS[0]) + codes_of(OPEN[0])) is None
    assert taken_out("OTHER", codes_of(KEEPS[0])) is None


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

    assert removed_from("shop/shop.py module global SESSIONS", is_own) is False
    assert removed_from("shop/shop.py module global TOKENS", is_own) is True
    assert removed_from("shop/shop.py module global PAGES", is_own) is False
    assert removed_from("ShopShelf.rows", is_own) is False
    assert removed_from("ShopShelf.seen", is_own) is True
    assert removed_from("class attribute ShopShelf.rows", is_own) is False
    assert removed_from("default argument of remember", is_own) is None
    assert removed_from("local rows of running job (a.py:3)", is_own) is None


def test_a_container_of_the_standard_library_is_looked_at_there() -> None:
    """What a Queue keeps is taken out by its own get."""
    import queue

    assert isinstance(queue.Queue().queue, deque)
    assert removed_from("Queue.queue", lambda file: False) is True
