"""More than one interpreter in the process, and the end of each."""

import sys
from pathlib import Path

import pytest

from tests.staysup.hosts import Place

OFTEN = ("--interval", 512)  # creating an interpreter allocates a lot

# The private module has another name in each version; from 3.12 on a sub-interpreter made by it
# has a GIL of its own.
INTERPRETERS = """
import importlib, os, sys, threading
name = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
interpreters = importlib.import_module(name)
WORK = '''
kept = [bytes(n % 3000) + str(n).encode() for n in range(3000)]
functions = {}
for n in range(100):
    exec(f"def made_{n}(): return [bytes(n) for n in range(100)]", functions)
    kept.append(functions[f"made_{n}"]())
del functions
'''
"""


def test_sub_interpreters_one_after_the_other(place: Place) -> None:
    """Interpreters that come and go, with code of their own, say nothing of Stanch and end well."""
    end = place.same(
        INTERPRETERS
        + """
kept = [bytes(n) for n in range(2000)]
for _ in range(5):
    made = interpreters.create()
    interpreters.run_string(made, WORK)
    interpreters.destroy(made)
print(sum(map(len, kept)))
""",
        options=OFTEN,
    )
    assert (end.code, end.err) == (0, "")


def test_sub_interpreters_in_threads(place: Place) -> None:
    """Several at once, from 3.12 on each with its own GIL, beside a busy main interpreter."""
    end = place.same(
        INTERPRETERS
        + """
def session():
    for _ in range(2):
        made = interpreters.create()
        interpreters.run_string(made, WORK)
        interpreters.destroy(made)
threads = [threading.Thread(target=session) for _ in range(3)]
for thread in threads:
    thread.start()
kept = [str(n) * 3 for n in range(20_000)]
for thread in threads:
    thread.join()
print(sum(map(len, kept)))
""",
        options=OFTEN,
    )
    assert (end.code, end.err) == (0, "")


def test_a_sub_interpreter_starts_no_second_sampler(place: Place) -> None:
    """A start there is one specific error, also with a GIL of its own, and a stop does nothing."""
    end = place.watched(
        INTERPRETERS
        + """
made = interpreters.create()
interpreters.run_string(made, '''
import stanch
from stanch import sampler
try:
    sampler.start()
except sampler.SamplerError as error:
    assert "already runs" in str(error) or "is a sub-interpreter" in str(error), error
else:
    raise AssertionError
stanch.stop()
''')
interpreters.destroy(made)
import stanch
assert stanch.stats().running
print("refused")
""",
        options=OFTEN,
    )
    assert (end.code, end.out, end.err) == (0, "refused\n", "")


def test_shutdown_beside_busy_daemon_threads(place: Place, neighbour: Path) -> None:
    """Python and C threads that allocate on and on while the interpreter is finalised."""
    for _ in range(3):
        end = place.same(
            """
            import ctypes, sys, threading, zlib
            ctypes.CDLL(sys.argv[1]).start_endless_threads(2)
            def churn(packed=zlib.compress(bytes(100_000))):
                while True:
                    zlib.decompress(packed)
                    [str(n) for n in range(100)]
            for _ in range(3):
                threading.Thread(target=churn, daemon=True).start()
            class Last:
                def __del__(self):
                    [bytes(700) for _ in range(2000)]
            kept = Last()
            kept.circle = [kept]
            print("done")
            """,
            neighbour,
        )
        assert (end.code, end.out, end.err) == (0, "done\n", "")
    assert place.left() == []


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("raise RuntimeError('unhandled')", 1),
        ("sys.exit('message')", 1),
        ("os.abort()", -6),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("ctypes.string_at(1)", -11),
    ],
)
def test_ends_keep_their_code(place: Place, how: str, code: int) -> None:
    """An error, an abort, a signal and a crash end a host with their usual code and words."""
    end = place.same(f"import ctypes, os, signal, sys\nkept = [bytes(99)] * 9\n{how}\n")
    assert end.code == code


def test_a_start_while_the_interpreter_ends(place: Place) -> None:
    """It can have no more threads then, from CPython 3.12 on, and has nothing to say of it."""
    end = place.bare(
        """
        import atexit, stanch
        atexit.register(lambda: print(stanch.stats().running))
        atexit.register(lambda: stanch.start(listen="127.0.0.1:0", push="http://127.0.0.1:9/none"))
        """
    )
    assert (end.code, end.out, end.err) == (0, "True\n", "")


def test_an_interpreter_that_is_started_again(place: Place, tmp_path: Path) -> None:
    """A program that embeds Python, finalises it and initialises it anew can sample each time."""
    import subprocess
    import sysconfig

    from tests.staysup.hosts import compiler

    library = Path(sysconfig.get_config_var("LIBDIR") or "")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not list(library.glob(f"lib{version}.*")):
        pytest.skip("no libpython here to embed")
    source, program = tmp_path / "embed.c", tmp_path / "embed"
    source.write_text(
        """
        #include <Python.h>
        int main(void) {
            for (int i = 0; i < 3; i++) {
                Py_Initialize();
                int failed = PyRun_SimpleString(
                    "import stanch, sys\\n"
                    "stanch.start(interval=64)\\n"
                    "kept = [bytes(1000) for _ in range(1000)]\\n"
                    "assert stanch.stats().live_bytes > 5e5, stanch.stats()\\n");
                if (failed || Py_FinalizeEx()) return 1;
            }
            puts("three lives");
            return 0;
        }
        """
    )
    flags = [f"-I{sysconfig.get_path('include')}", f"-L{library}", f"-Wl,-rpath,{library}"]
    libraries = (sysconfig.get_config_var("LIBS") or "").split()
    subprocess.run(
        [compiler(), source, "-o", program, "-rdynamic", *flags, f"-l{version}", *libraries,
         "-lm", "-lpthread", "-ldl", "-lutil"],
        check=True,
    )  # fmt: skip
    paths = ":".join(each for each in sys.path if each)
    answer = subprocess.run(
        [program], capture_output=True, text=True, timeout=300,
        env=place.environ | {"PYTHONPATH": paths, "PYTHONHOME": sys.base_prefix},
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (0, "three lives\n"), answer.stderr
