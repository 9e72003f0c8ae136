"""What the retention search finds: roots and references named as a person would name them."""

import sys

import pytest

from .conftest import RunPython
from .searching import program

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)


def test_roots_and_references_have_names(run_python: RunPython) -> None:
    """Each kind of holder is named: globals, classes, instances, closures, locals, defaults."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=512)
            class Session:
                def __init__(self): self.request = [bytes(300)]
            class Slotted:
                __slots__ = ("rows",)
                def __init__(self): self.rows = [bytes(300)]
            class Registry:
                items = []
            SESSIONS, SLOTS = {}, []
            def instances():
                for n in range(200): SESSIONS[n] = Session()
            def slots():
                for n in range(200): SLOTS.append(Slotted())
            def classes():
                for n in range(200): Registry.items.append(bytes(300))
            def defaults(n=None, kept=[]):
                for n in range(200): kept.append(bytes(300))
            def make():
                kept = []
                def closure():
                    for n in range(200): kept.append(bytes(300))
                return closure
            closure = make()
            def locals_of():
                mine = []
                for n in range(200): mine.append(bytes(300))
                way = main_way("locals_of")
                assert way.startswith("local mine of running locals_of (<string>:"), way
                assert way.endswith(") (list) -> bytes"), way
            instances(); slots(); classes(); defaults(); closure(); locals_of()
            top = "__main__ module global"
            expect(f"{top} SESSIONS (dict) -> Session -> Session.request (list) -> bytes",
                   "instances")
            expect(f"{top} SLOTS (list) -> Slotted -> Slotted.rows (list) -> bytes", "slots")
            expect(f"{top} Registry (class Registry) -> class attribute Registry.items (list)"
                   " -> bytes", "classes")
            expect(f"{top} defaults (function defaults) -> default argument of defaults (tuple)"
                   " -> list -> bytes", "defaults")
            expect(f"{top} closure (function make.<locals>.closure) -> closure cell kept of"
                   " make.<locals>.closure -> list -> bytes", "closure")
            """
        )
    )


def test_what_holds_for_the_moment_only_is_told_last(run_python: RunPython) -> None:
    """A queue on a short way to what a longer one holds too is passed over, unless it is alone."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=512)
            QUEUE = collections.deque()
            class Deliveries: pass
            OWNER = [[Deliveries()]]
            OWNER[0][0].following = set()
            def both():
                for n in range(200):
                    one = (bytes(300), n, [])
                    OWNER[0][0].following.add(one[0] + bytes([n, n]))
                QUEUE.append(OWNER[0][0].following.discard)
            def alone():
                QUEUE.append([bytes(300) for n in range(200)])
            both()
            way = main_way("both")
            assert way.startswith("__main__ module global QUEUE (deque) -> "), way
            expect("__main__ module global OWNER (list) -> list -> Deliveries"
                   " -> Deliveries.following (set) -> bytes", "both", late=(QUEUE,))
            alone()
            way = main_way("alone", late=(QUEUE,))
            assert way == "a queue of what is about to run (deque) -> list -> bytes", way
            assert not look("alone", late=(QUEUE, {}, [])).limits
            """
        )
    )


def test_threads_contexts_and_tasks_have_names(run_python: RunPython) -> None:
    """Thread locals, context variables, suspended coroutines and tasks are called that."""
    run_python(
        program(
            """
            import asyncio, contextvars
            sampler.start(interval_bytes=512)
            LOCAL = threading.local()
            CURRENT = contextvars.ContextVar("current_request")
            TASKS = set()
            def thread_local():
                LOCAL.rows = [bytes(300) for _ in range(200)]
            def context():
                CURRENT.set([bytes(300) for _ in range(200)])
            async def follow():
                mail = []
                for n in range(20): mail.append(bytes(300))
                await asyncio.Event().wait()
            async def main():
                for _ in range(40):
                    TASKS.add(asyncio.create_task(follow()))
                await asyncio.sleep(0)
                way = main_way("follow")
                assert way.startswith("__main__ module global TASKS (set) -> asyncio task -> "), way
                assert "local mail of follow (<string>:" in way, way
                for task in TASKS: task.cancel()
            thread_local(); context()
            expect("__main__ module global LOCAL (_local) -> thread local rows (list) -> bytes",
                   "thread_local")
            expect("the current context of a thread -> context variable current_request (list)"
                   " -> bytes", "context")
            asyncio.run(main())
            """
        )
    )


def test_untracked_objects_and_buffers_are_attributed(run_python: RunPython) -> None:
    """What the collector does not track is found through its holder, storage through its owner."""
    run_python(
        program(
            """
            import array
            sampler.start(interval_bytes=64)
            KEYS, NUMBERS, PAIRS = {}, {}, []
            ROWS, TABLE, ORDER, QUEUE = [], {}, collections.OrderedDict(), collections.deque()
            BYTES, ARRAY = bytearray(), array.array("q")
            def keys():
                for n in range(300): KEYS["key of a dict %d" % n] = None
            def numbers():
                for n in range(300): NUMBERS[n + 10**30] = float(n)
            def pairs():
                for n in range(300): PAIRS.append((n + 10**30, str(n)))
            def fill():
                for n in range(20_000):
                    ROWS.append(None); TABLE[n % 256] = None; QUEUE.append(None)
                    ORDER[n] = None; BYTES.append(1); ARRAY.append(1)
            keys(); numbers(); pairs(); fill()
            kinds = {"keys": "KEYS (dict) -> str", "numbers": "NUMBERS (dict) -> int",
                     "pairs": "PAIRS (list) -> tuple -> int"}
            for function, way in kinds.items():
                found = texts(look(function))
                assert found[f"__main__ module global {way}"], found
                assert not any("not reachable" in each for each in found), found
            found = texts(look("fill"))
            for name in ("ROWS (list)", "TABLE (dict)", "ORDER (OrderedDict)", "QUEUE (deque)",
                         "BYTES (bytearray)", "ARRAY (array)"):
                assert found[f"__main__ module global {name} -> its own storage"], (name, found)
            """
        )
    )


def test_names_that_the_interpreter_caches_are_attributed_to_it(run_python: RunPython) -> None:
    """The cache of attribute lookups keeps the names that C code asked for."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=64)
            class Codec:
                pass
            def lookups():
                for n in range(300):
                    hasattr(Codec, "".join(("incremental", "decoder")))
            lookups()
            found = texts(look("lookups"))
            assert found["the interpreter itself (a cache of names, at exit, at fork) (str)"], found
            assert not any("not reachable" in each for each in found), found
            if sys.version_info[:2] == (3, 12):  # the one that keeps interned strings for ever
                def interning():
                    for n in range(300): sys.intern("a name made at run time %d" % n)
                interning()
                found = texts(look("interning"))
                assert any("a cache of names" in way and way.endswith("(dict) -> str")
                           for way in found), found
                assert not any("not reachable" in each for each in found), found
            """
        )
    )


def test_bounds_and_sizes_of_containers(run_python: RunPython) -> None:
    """The length of each container is told, and its bound where there is one."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=256)
            class Cache:
                def __init__(self): self._Cache__data, self._Cache__maxsize = {}, 700
            class Slots:
                __slots__ = ("data", "max_size")
                def __init__(self): self.data, self.max_size = [], 800
            class Own(collections.OrderedDict): pass
            CACHE, SLOTS, OWN, PLAIN = Cache(), Slots(), Own(), {}
            OWN.capacity = 900
            RING = collections.deque(maxlen=500)
            @functools.lru_cache(maxsize=600)
            def cached(n): return bytes(300)
            def keep():
                for n in range(300):
                    CACHE._Cache__data[n] = bytes(300); SLOTS.data.append(bytes(300))
                    OWN[n] = bytes(300); PLAIN[n] = bytes(300); RING.append(bytes(300)); cached(n)
            keep()
            search = look("keep")
            sizes = {(node.type, node.length, node.bound) for node in search.nodes
                     if node.shape in (retention.Shape.CONTAINER, retention.Shape.LRU)}
            assert {("dict", 300, 700), ("list", 300, 800), ("Own", 300, 900), ("dict", 300, None),
                    ("collections.deque", 300, 500),
                    ("functools._lru_cache_wrapper", 300, 600)} <= sizes, sizes
            """
        )
    )


def test_cycles_and_references_from_c_are_called_that(run_python: RunPython) -> None:
    """Garbage cycles, gc.garbage and objects that only C refers to have a sentence each."""
    run_python(
        program(
            """
            import ctypes
            sampler.start(interval_bytes=256)
            gc.disable()
            ctypes.pythonapi.Py_IncRef.argtypes = [ctypes.py_object]
            ctypes.pythonapi.Py_DecRef.argtypes = [ctypes.py_object]
            def cycles():
                for n in range(200):
                    one = [bytes(300)]
                    one.append(one)
            def saved():
                for n in range(200):
                    one = [bytes(300)]
                    one.append(one)
                    gc.garbage.append(one)
            ADDRESSES = []
            def tracked():
                for n in range(200):
                    one = [bytes(300)]
                    ctypes.pythonapi.Py_IncRef(one)
                    ADDRESSES.append(id(one))
            def loose():
                for n in range(200):
                    ctypes.pythonapi.Py_IncRef(bytes(300))
            ctypes.pythonapi.PyMem_RawMalloc.restype = ctypes.c_void_p
            def raw():
                for n in range(200):
                    ctypes.pythonapi.PyMem_RawMalloc(300)
            cycles(); saved(); tracked(); loose(); raw()
            expect("reference cycle waiting for the collector (list) -> bytes", "cycles")
            assert look("cycles").garbage >= 200
            expect("uncollectable cycle, in gc.garbage (list) -> list -> bytes", "saved")
            expect("reference held only from C (native reference, or a missing decref) (list)"
                   " -> bytes", "tracked")
            expect("not reachable from any Python object: native reference, or a missing decref",
                   "loose")
            expect("native memory of C code or of the interpreter itself, held by no Python object",
                   "raw")
            gc.collect()
            for address in ADDRESSES:
                ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object).value)
            """
        )
    )


def test_no_code_of_the_host_runs(run_python: RunPython) -> None:
    """Hostile methods, properties, hashes and metaclasses are never called, in either way."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=256)
            CALLS = []
            def hostile(name):
                def method(self, *arguments):
                    CALLS.append(name)
                    raise RuntimeError(name)
                return method
            armed = {name: hostile(name) for name in (
                "__repr__", "__str__", "__eq__", "__hash__", "__len__", "__bool__", "__iter__",
                "__contains__", "__getattr__", "__getattribute__", "__instancecheck__",
                "__subclasscheck__", "__getitem__", "__dir__", "maxsize", "__del__")}
            armed["maxsize"] = property(armed["maxsize"])
            del armed["__del__"]
            class Meta(type): pass
            class Keyed:
                "hashable, so that it can be a key"
                def __hash__(self): CALLS.append("hash"); return 1
            class Hostile(dict, metaclass=Meta): pass
            KEPT, BY_KEY = [], {}
            def keep():
                for n in range(200):
                    one = Hostile(rows=[bytes(300)])
                    KEPT.append(one)
                BY_KEY[Keyed()] = [bytes(300) for _ in range(200)]
            keep()
            for name, method in armed.items():
                setattr(Hostile, name, method); setattr(Keyed, name, method)
                setattr(Meta, name, method)
            CALLS.clear()
            for in_process in (False, True):
                found = texts(look("keep", in_process=in_process, values=True))
                assert found.total() > 50, found
            assert CALLS == [], CALLS
            os._exit(0)
            """
        )
    )


def test_deep_and_cyclic_structures(run_python: RunPython) -> None:
    """A long chain and a large ring are searched without recursion; the path says it is long."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=20_000)
            gc.disable()
            class Link:
                __slots__ = ("before", "load")
            def chain():
                last = None
                for n in range(300_000):
                    link = Link()
                    link.before, link.load = last, bytes(50)
                    last = link
                return last
            def ring():
                nodes = [[None, bytes(50)] for _ in range(100_000)]
                for n, node in enumerate(nodes): node[0] = nodes[n - 1]
                return nodes[0]
            HEAD, RING = chain(), ring()
            deep = texts(look("chain"))
            deep.pop(OF_C, None)  # the allocator's own list of arenas
            assert deep.total() > 500
            start = "__main__ module global HEAD (Link) -> Link.before (Link)"
            assert all(way.startswith(start) for way in deep), deep
            assert any("a long chain of objects" in way for way in deep), deep
            assert texts(look("ring")).total() > 100
            os._exit(0)
            """
        )
    )


def test_freed_and_reused_addresses(run_python: RunPython) -> None:
    """Samples are taken at the moment of the search: what is freed by then is not looked for."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=512)
            KEPT = []
            def old():
                KEPT[:] = [bytes(300) for _ in range(500)]
            def new():
                KEPT[:] = [[n] * 30 for n in range(500)]
            old()
            image = sampler.snapshot()
            stacks = [n for n, stack in enumerate(image.stacks)
                      if any(place.name == "old" for place, _ in stack.frames)]
            assert retention.search(stacks).found
            new()
            found = retention.search(stacks)
            assert [each for each in found.found if 300 < each.size_bytes < 400] == [], found
            """
        )
    )


def test_values_are_shown_only_when_asked(run_python: RunPython) -> None:
    """Keys of containers are data: without `values` no byte of them is in the answer."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=512)
            SECRETS = {}
            def keep():
                for n in range(100): SECRETS["alice-%d@example.org" % n] = [bytes(300)]
            keep()
            def told(**options):
                return str(look("keep", **options).nodes)
            assert "alice" not in told()
            assert "alice" in told(values=True)
            """
        )
    )


def test_numpy_data_is_attributed_to_its_array(run_python: RunPython) -> None:
    """Objects in an array of objects are found through it, and its data, where sampled, too."""
    run_python(
        program(
            """
            try:
                import numpy
            except ImportError:
                sys.exit()
            sampler.start(interval_bytes=512)
            def keep():
                array = numpy.empty(200, dtype=object)
                for n in range(200): array[n] = [bytes(300)]
                return array
            ARRAY = keep()
            expect("__main__ module global ARRAY (numpy.ndarray) -> list -> bytes", "keep")
            """
        )
    )
