"""The frames of a sample are those that CPython itself would name, whatever calls whatever."""

from tests.sampler.conftest import RunPython

WAYS = """
import asyncio, contextlib, functools, sys
from stanch import sampler

truths = {}

def leaf(way):
    truths.setdefault(way, []).append((bytearray(100_000), truth(sys._getframe())))

def truth(frame):
    found = []
    while frame is not None:
        found.append((frame.f_code.co_qualname, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)

def plain(): leaf("plain")

class Made:
    def __init__(self): leaf("class")

class Called:
    def __call__(self, _=None): leaf("call")
    def __getattr__(self, name): leaf("getattr")
    def __lt__(self, other):
        leaf("sorted")
        return True
    def __del__(self): leaf("del")
    @property
    def held(self): leaf("property")

def generator():
    leaf("generator")
    yield

def delegating():
    yield from later()

def later():
    yield 1
    leaf("yield from")

async def outer():
    await asyncio.sleep(0)
    await inner()
    async with manager():
        leaf("async with")

async def inner(): leaf("await")

@contextlib.asynccontextmanager
async def manager():
    leaf("asynccontextmanager")
    yield

def from_c(*_): leaf("from C")

def many(*arguments, **keywords): leaf("many")

def drop():
    it = Called()
    del it

def everything():
    plain()
    Made()
    Called()()
    for _ in range(100): Made.__init__  # warm up the specialised forms
    Called().anything
    sorted([Called(), Called()])
    Called().held
    list(generator())
    for _ in delegating(): pass
    asyncio.run(outer())
    functools.reduce(from_c, [1, 2])
    many(*range(300), **{f"k{i}": i for i in range(300)})
    [leaf("comprehension") for _ in range(1)]
    (lambda: leaf("lambda"))()
    exec(compile("leaf('exec')", "<made>", "exec"), globals())
    eval("leaf('eval')")
    drop()

def trace(frame, event, argument): return trace
"""


def test_stacks_are_those_of_cpython(run_python: RunPython) -> None:
    """Functions and lines of each sampled stack are those that sys._getframe gives there."""
    run_python(
        WAYS
        + """
sampler.start(interval_bytes=1000)
for _ in range(5):
    everything()  # cold first, later as the interpreter has specialised it
sys.settrace(trace)
everything()
sys.settrace(None)
image = sampler.snapshot()
sampler.stop()
sampled = {tuple((f.name, line) for f, line in stack.frames) for stack in image.stacks}
missing = {(way, frames) for way, all in truths.items() for _, frames in all} - {
    (way, frames) for way, all in truths.items() for _, frames in all if frames in sampled}
assert not missing, missing
assert len(truths) == 18, sorted(truths)
"""
    )
