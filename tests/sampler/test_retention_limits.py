"""Where no snapshot is possible, or not for long: seccomp, memory cgroups. A sentence says so."""

import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from stanch.demo.host.cgroup import CgroupTree
from stanch.demo.host.limits import CgroupEnclosure

from .conftest import RunPython
from .searching import program

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)
MIB = 1024 * 1024
RunLimited = Callable[[str, int], None]
KEEP = """
    sampler.start(interval_bytes=512)
    KEPT = []
    def keep():
        for n in range(1000): KEPT.append([bytes(300)])
    keep()
    def refusal(**options):
        try:
            look("keep", **options)
        except sampler.SearchError as error:
            return str(error)
        raise AssertionError
"""


@pytest.fixture
def run_limited(cgroup_tree: CgroupTree) -> RunLimited:
    """Give a function that runs a program inside a memory cgroup of so many bytes."""

    def run(text: str, limit_bytes: int) -> None:
        enclosure = CgroupEnclosure(cgroup_tree.create("search", limit_bytes))
        process = subprocess.Popen(
            enclosure.wrap([sys.executable, "-c", text]),
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        enclosure.entered(process.pid)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
        enclosure.remove()

    return run


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names x86-64's clone")
def test_a_seccomp_filter_that_forbids_processes(run_python: RunPython) -> None:
    """A sentence names seccomp and `--in-process`, which then works."""
    run_python(
        program(
            KEEP
            + """
    import ctypes, struct
    PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
    LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
    CLONE, ALLOW, REFUSE = 56, 0x7FFF0000, 0x00050001  # SECCOMP_RET_ERRNO | EPERM
    steps = [(LOAD, 0, 0, 0), (JUMP_EQUAL, 0, 1, CLONE), (RETURN, 0, 0, REFUSE),
             (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filter = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, filter, 0, 0):
        sys.exit()  # no seccomp in this kernel
    told = refusal()
    assert "a seccomp filter forbids it" in told and "inside the process" in told, told
    assert texts(look("keep", in_process=True))["__main__ module global KEPT (list) -> list"
                                                " -> bytes"]
    """
        )
    )


def test_a_memory_limit_that_is_too_near(run_limited: RunLimited) -> None:
    """With less than 16 MiB below the cgroup's limit no search begins, and that is said."""
    run_limited(
        program(
            KEEP
            + """
    from stanch.sampler.cgroup import group_account
    def left():
        memory = group_account().memory
        return memory.limit_bytes - memory.working_set_bytes
    FILL = []
    look("keep")
    while left() > 12 << 20:
        FILL.append(b"x" * (1 << 20))
    for in_process in (False, True):
        told = refusal(in_process=in_process)
        assert "MiB are left below the memory limit of 96 MiB" in told, told
    FILL.clear()
    assert look("keep").found
    """
        ),
        96 * MIB,
    )


def test_a_snapshot_that_lives_while_memory_runs_out(run_limited: RunLimited) -> None:
    """A search ends at once when the cgroup's use comes near its limit, and the host lives on."""
    run_limited(
        program(
            KEEP
            + """
    import ctypes
    class Slow(list): pass
    HELD = [Slow([bytes(300)])]
    words = ctypes.cast(id(Slow), ctypes.POINTER(ctypes.c_void_p))
    saved = words[23]
    gc.disable()
    words[23] = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value  # its tp_traverse
    FILL = []
    def children():
        return open(f"/proc/self/task/{searcher.native_id}/children").read()
    told = []
    # Of stacks that do not exist: the walk goes through all there is, and meets the slow one.
    def search():
        try:
            retention.search(range(10_000), seconds=60.0)
        except sampler.SearchError as error:
            told.append(str(error))
    searcher = threading.Thread(target=search)
    searcher.start()
    while searcher.is_alive() and not children(): time.sleep(0.001)
    while searcher.is_alive() and len(FILL) < 215:
        FILL.append(b"x" * (1 << 20))
        time.sleep(0.001)
    searcher.join()
    words[23] = saved
    assert told and "memory came too near to its limit" in told[0], told
    FILL.clear()
    assert look("keep").found
    """
        ),
        256 * MIB,
    )
