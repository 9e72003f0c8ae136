"""What the code of the program does to a container, as its bytecode says: whether any takes entries
out of it, whether that code has run, and whether any compares its length with something.

Takes the name of the container as the retention search tells it, such as "app/a.py module global
SESSIONS". Reads code objects only: it runs nothing of the program and touches none of its values.
It looks where that name can be used: in the application's own modules, in the module that the
global is of, or in the package of the class that the attribute is of.

The answer errs on the side of "taken out": any removal in a function that names the container
counts, and so does its replacement. Where the container is handed on to other code, or nothing
names it, there is no answer. Not seen: removal through globals(), vars() or setattr.

Code that has run a few times is known by the instructions that the interpreter has specialised in
it: after eight runs on CPython 3.11, after two on 3.12, after one from 3.13 on.
"""

import contextlib
import dis
import functools
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, ModuleType

from stanch.agent.tasks import current_tasks, task_stack

MAX_CODES = 50_000
_MAX_TASKS = 1000
_MAX_STEPS = 60
_DEEPEST = 6
_OPTIMIZED = 0x1
_MAKERS = ("__init__", "__new__", "_init")
"""Functions in which a container is made and not replaced; the last is what queue.Queue calls."""
"""Flag of the code of functions; bodies of classes and modules, which make things, have it not."""

_GLOBAL = re.compile(r"^(?P<file>.+) module global (?P<name>\w+)$")
_ATTRIBUTE = re.compile(r"^(?:class attribute .*?)?(?P<type>\w+)\.(?P<name>\w+)$")
_CELL = re.compile(r"^closure cell (?P<name>\w+) of ")

_REMOVING = frozenset(
    "pop popitem popleft clear remove discard get get_nowait difference_update intersection_update"  # noqa: SIM905 -- 30 lines
    " symmetric_difference_update expire prune evict purge __delitem__ __delslice__".split()
)
_KEEPING = frozenset(
    "append appendleft add extend extendleft insert setdefault update put put_nowait items keys"  # noqa: SIM905 -- 30 lines
    " values copy count index __getitem__ __setitem__ __contains__ __len__ issubset isdisjoint"
    " union most_common sort reverse qsize empty full".split()
)
_READERS = frozenset(
    "len iter list tuple set frozenset dict sorted reversed enumerate sum max min any all bool repr"  # noqa: SIM905 -- 30 lines
    " str id print isinstance range map filter zip".split()
)
_AT_ONCE = frozenset(
    "GET_ITER CONTAINS_OP COMPARE_OP IS_OP GET_LEN POP_TOP STORE_FAST UNARY_NOT TO_BOOL"  # noqa: SIM905 -- 30 lines
    " FORMAT_VALUE FORMAT_SIMPLE POP_JUMP_IF_TRUE POP_JUMP_IF_FALSE POP_JUMP_IF_NONE"
    " POP_JUMP_IF_NOT_NONE POP_JUMP_FORWARD_IF_TRUE POP_JUMP_FORWARD_IF_FALSE"
    " POP_JUMP_FORWARD_IF_NONE POP_JUMP_FORWARD_IF_NOT_NONE".split()
)
"""What uses the value on top of the stack and neither hands it on nor changes it. A local name for
it is no way out: removals count wherever they are in the function."""

_NO_STEP = frozenset({"CACHE", "RESUME", "PRECALL", "NOP", "EXTENDED_ARG", "KW_NAMES"})
_CALLS = {"CALL": 1, "CALL_KW": 2, "CALL_FUNCTION_EX": 2}
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_DEREF", "LOAD_METHOD"})


@dataclass(frozen=True, slots=True)
class Uses:
    """What code does to a container.

    removed: whether any takes entries out, None when that cannot be told. ran: whether any of that
    code runs or has run a few times, None where there is none. sized: whether any compares the
    number of entries with anything but zero, as code that keeps to a bound does.
    """

    removed: bool | None = None
    ran: bool | None = None
    sized: bool = False


NOTHING = Uses()


def uses_of(container: str, is_own: Callable[[str], bool]) -> Uses:
    """What code does to the container of this name.

    is_own: whether a file is the application's own code.
    """
    for pattern in (_GLOBAL, _CELL, _ATTRIBUTE):
        if found := pattern.match(container):
            parts = found.groupdict()
            running = list(_running())
            modules = _modules(parts.get("file"), parts.get("type"), is_own)
            return uses_in(parts["name"], _codes(modules, running), running)
    return NOTHING


def uses_in(name: str, codes: Iterable[CodeType], running: Collection[CodeType] = ()) -> Uses:
    """What these code objects do to what they call `name`.

    running: code that is running or suspended now, however seldom it has begun.
    """
    answers: set[bool | None] = set()
    ran = sized = False
    for number, code in enumerate(codes):
        if number >= MAX_CODES:
            answers.add(None)
            break
        if name in code.co_names or name in code.co_freevars or name in code.co_cellvars:
            steps = [step for step in dis.get_instructions(code) if step.opname not in _NO_STEP]
            removed = _in_code(code, steps, name)
            answers.add(removed)
            sized = sized or _compares_length(steps, name)
            if removed:
                ran = ran or _has_run(code) or any(code is one for one in running)
    # One removal decides; else one use that says nothing leaves it open.
    if True in answers:
        return Uses(True, ran, sized)
    return Uses(False if answers == {False} else None, None, sized)


# ---- one function ----


def _in_code(code: CodeType, steps: list[dis.Instruction], name: str) -> bool | None:
    makes = not code.co_flags & _OPTIMIZED or code.co_name in _MAKERS
    answer: bool | None = False
    for number, step in enumerate(steps):
        if step.opname in ("DELETE_SUBSCR", "STORE_SLICE") or _stores_slice(steps, number):
            return True
        if step.opname in ("LOAD_METHOD", "LOAD_ATTR") and _removes(steps, number, name):
            return True
        if step.argval != name:
            continue
        kind = step.opname
        if kind.startswith("DELETE_"):
            return True
        if kind in ("STORE_GLOBAL", "STORE_ATTR", "STORE_DEREF", "STORE_NAME"):
            owns = kind == "STORE_DEREF" and name in code.co_cellvars
            if not (makes or owns or _adds_in_place(steps, number)):
                return True
        elif kind in _LOADS and not _is_harmless(steps, number):
            answer = None
    return answer


def _has_run(code: CodeType) -> bool:
    """Whether the interpreter has specialised an instruction of it; pairs it makes beforehand."""
    return any(
        step.opname not in dis.opmap and "__" not in step.opname
        for step in dis.get_instructions(code, adaptive=True)
    )


def _compares_length(steps: list[dis.Instruction], name: str) -> bool:
    """Whether `len(NAME)` is compared, at once or, kept in a variable, later in the function.

    With zero does not count: that asks whether there is anything at all.
    """
    for number, step in enumerate(steps):
        before = steps[max(number - 3, 0) : number]
        asks = step.argval == name and step.opname in _LOADS
        if not (asks and any(one.argval == "len" and one.opname in _LOADS for one in before)):
            continue
        if [one.opname for one in steps[number + 1 : number + 2]] != ["CALL"]:
            continue
        previous = step
        is_kept = False
        for one in steps[number + 2 : number + 2 + _MAX_STEPS]:
            if one.opname == "COMPARE_OP" and previous.argval != 0:
                return True
            is_kept = is_kept or one.opname in ("STORE_FAST", "STORE_DEREF")
            if not is_kept and (one.opname in ("STORE_ATTR", "POP_TOP") or "JUMP" in one.opname):
                break
            previous = one
    return False


def _removes(steps: list[dis.Instruction], number: int, name: str) -> bool:
    """Whether a removing method is meant; `get` is a queue's only where it has no arguments."""
    method = steps[number].argval
    if method != "get" or method == name:
        return method in _REMOVING and method != name
    after = steps[number + 1 : number + 2]
    return bool(after) and after[0].opname == "CALL" and after[0].arg == 0


def _stores_slice(steps: list[dis.Instruction], number: int) -> bool:
    key = steps[number - 1]
    # From 3.14 on a slice without variables is a constant.
    is_slice = key.opname == "BUILD_SLICE" or isinstance(key.argval, slice)
    return steps[number].opname == "STORE_SUBSCR" and is_slice


def _adds_in_place(steps: list[dis.Instruction], number: int) -> bool:
    return any(step.argrepr in ("+=", "|=") for step in steps[max(number - 3, 0) : number])


def _is_harmless(steps: list[dis.Instruction], number: int) -> bool:
    """Whether what is loaded there is only added to or read, as far as the next steps say."""
    depth = 1  # of the stack above what was there before; the container lies lowest
    for step in steps[number + 1 : number + 1 + _MAX_STEPS]:
        kind = step.opname
        if depth == 1 and kind in ("LOAD_ATTR", "LOAD_METHOD"):
            return step.argval in _KEEPING or step.argval == "get"
        if depth == 1 and kind in _AT_ONCE:
            return True
        if depth == 2 and (kind in ("BINARY_SUBSCR", "STORE_SUBSCR") or step.argrepr == "[]"):
            return True
        if (depth == 2 and kind in ("CONTAINS_OP", "COMPARE_OP", "IS_OP")) or (
            depth == 3 and kind == "BINARY_SLICE"
        ):
            return True
        if depth <= 2 and step.argrepr in ("+=", "|="):
            return True
        if kind in _CALLS:
            taken = (step.arg or 0) + _CALLS[kind]
            if depth - taken - 1 < 1:
                return _is_reader(steps, number)
            depth -= taken
            continue
        if step.opcode in dis.hasjabs or step.opcode in dis.hasjrel:
            return False
        depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        if depth < 1:
            return False
    return False


def _is_reader(steps: list[dis.Instruction], number: int) -> bool:
    before = steps[max(number - 3, 0) : number]
    return any(
        step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in _READERS for step in before
    )


# ---- where to look ----


def _modules(
    file: str | None, type_name: str | None, is_own: Callable[[str], bool]
) -> list[ModuleType]:
    everything = [one for one in list(sys.modules.values()) if type(one) is ModuleType]
    chosen = [one for one in everything if is_own(_file_of(one))]
    if file is not None:
        chosen += [one for one in everything if _file_of(one).endswith(file)]
    if type_name is not None:
        packages = {
            one.__name__.partition(".")[0]
            for one in everything
            if isinstance(owner := vars(one).get(type_name), type)
            and owner.__module__ == one.__name__
        }
        chosen += [one for one in everything if one.__name__.partition(".")[0] in packages]
    return list({id(one): one for one in chosen}.values())


def _file_of(module: ModuleType) -> str:
    file = vars(module).get("__file__")
    return file if isinstance(file, str) else ""


def _running() -> Iterator[CodeType]:
    """The code that stands in the frames of all threads, and of tasks, which wait to go on."""
    for frame in sys._current_frames().values():
        at: FrameType | None = frame
        while at is not None:
            yield at.f_code
            at = at.f_back
    for task in current_tasks().tasks[:_MAX_TASKS]:
        with contextlib.suppress(Exception):  # a task of somebody else's kind
            yield from [code for code, _ in task_stack(task)]


def _codes(modules: list[ModuleType], running: Iterable[CodeType]) -> Iterator[CodeType]:
    """All code of these modules, each once, and what runs now, as the code of a script does."""
    seen: set[int] = set()
    # A code object is kept, for its identity is only its own while it lives.
    kept: list[CodeType] = []

    def new(code: CodeType, depth: int = 0) -> Iterator[CodeType]:
        if id(code) in seen:
            return
        seen.add(id(code))
        kept.append(code)
        yield code
        for constant in code.co_consts if depth < _DEEPEST else ():
            if isinstance(constant, CodeType):
                yield from new(constant, depth + 1)

    for code in running:
        yield from new(code)
    for module in modules:
        for value in list(vars(module).values()):
            for function in _functions(value, module.__name__, 0):
                yield from new(function.__code__)


def _functions(value: object, module: str, depth: int) -> Iterator[FunctionType]:
    """The functions in a value of a module: itself, what it wraps, what a class of it has.

    Nothing is asked of the value by its own code: its type is looked at, and what types keep.
    """
    if depth > _DEEPEST:
        return
    if isinstance(value, FunctionType):
        yield value
        for cell in value.__closure__ or ():
            try:
                inner = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if isinstance(inner, FunctionType):
                yield from _functions(inner, module, depth + 1)
        if isinstance(inner := value.__dict__.get("__wrapped__"), FunctionType):
            yield from _functions(inner, module, depth + 1)
    elif isinstance(value, staticmethod | classmethod):
        yield from _functions(value.__func__, module, depth + 1)
    elif type(value) is functools._lru_cache_wrapper:
        yield from _functions(vars(value).get("__wrapped__"), module, depth + 1)
    elif type(value) is property:
        for part in (value.fget, value.fset, value.fdel):
            yield from _functions(part, module, depth + 1)
    elif isinstance(value, type) and value.__dict__.get("__module__") == module:
        for part in list(value.__dict__.values()):
            yield from _functions(part, module, depth + 1)
