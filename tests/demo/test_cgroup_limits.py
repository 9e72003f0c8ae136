"""Memory cgroups of the demo: found, limited, killed at the limit by the kernel, removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.demo.host.cgroup import (
    Cgroup,
    CgroupError,
    CgroupTree,
    Hierarchy,
    find_hierarchy,
    remove_leftovers,
)
from stanch.demo.host.limits import CgroupEnclosure, WatchedEnclosure
from stanch.demo.host.processes import kill_session, session_pids

MIB = 1024 * 1024
# Allocates and touches memory for ever, 4 MiB at a time.
EATER = "hold = []\nwhile True: hold.append(b'x' * (4 << 20))"


def write_proc(root: Path, cgroup: str, mountinfo: str) -> None:
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mountinfo)


def write_v2_group(directory: Path, passes_on: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.stat").write_text("inactive_file 0\n")
    (directory / "cgroup.subtree_control").write_text(passes_on)


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n"


def test_version_1_makes_groups_below_its_own(tmp_path: Path) -> None:
    """Under version 1 the parent of the nodes' groups is the group of the demo itself."""
    mount = "33 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    write_proc(tmp_path, "4:memory:/user/demo\n", mount)
    own = tmp_path / "sys/fs/cgroup/memory/user/demo"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text("1\n")
    assert find_hierarchy(root=tmp_path) == Hierarchy(1, own)


def test_version_2_takes_the_nearest_group_that_passes_memory_on(tmp_path: Path) -> None:
    """Under version 2 a group that holds processes cannot have limited children, so go up."""
    write_proc(tmp_path, "0::/user.slice/demo.scope\n", V2_MOUNT)
    mount = tmp_path / "sys/fs/cgroup"
    write_v2_group(mount, "cpu memory")
    write_v2_group(mount / "user.slice", "memory pids")
    write_v2_group(mount / "user.slice/demo.scope", "")
    assert find_hierarchy(root=tmp_path) == Hierarchy(2, mount / "user.slice")


def test_version_2_without_the_controller_says_so(tmp_path: Path) -> None:
    """Where no group up to the root passes memory on, the error says what to do."""
    write_proc(tmp_path, "0::/\n", V2_MOUNT)
    write_v2_group(tmp_path / "sys/fs/cgroup", "cpu")
    with pytest.raises(CgroupError, match="Delegate=yes"):
        find_hierarchy(root=tmp_path)


def test_version_2_group_reads_its_files(tmp_path: Path) -> None:
    """A version 2 group writes its limit, and reads working set and kills from v2's own files."""
    files = {
        "memory.current": "5000\n",
        "memory.stat": "anon 1\ninactive_file 1000\n",
        "memory.events": "low 0\noom 2\noom_kill 3\n",
        "cgroup.procs": "12\n0\n34\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = Cgroup(2, tmp_path)
    group.limit(4096)
    assert (tmp_path / "memory.max").read_text() == "4096"
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    assert (group.working_set_bytes(), group.oom_kills()) == (4000, 3)
    assert group.pids() == [12, 34], "0 is a process of another name space and never a target"


def test_the_kernel_kills_at_the_limit(cgroup_tree: CgroupTree) -> None:
    """A process that outgrows its group is killed by the kernel, and the group tells so."""
    enclosure = CgroupEnclosure(cgroup_tree.create("eater", 32 * MIB))
    assert not enclosure.struck()
    process = subprocess.Popen(
        enclosure.wrap([sys.executable, "-c", EATER]), start_new_session=True
    )
    enclosure.entered(process.pid)
    assert process.wait(60) == -9
    assert enclosure.struck()
    enclosure.remove()


def test_removal_kills_what_still_runs(cgroup_tree: CgroupTree) -> None:
    """Removing the tree kills the processes in it and leaves no directory behind."""
    group = cgroup_tree.create("sleeper", 64 * MIB)
    process = subprocess.Popen(
        CgroupEnclosure(group).wrap(["/bin/sh", "-c", "echo in; exec sleep 600"]),
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    assert process.pid in group.pids()
    assert group.working_set_bytes() > 0
    cgroup_tree.remove()
    assert process.wait(10) == -9
    assert not group.directory.parent.exists()
    process.stdout.close()


def test_leftovers_of_a_dead_demo_are_removed(cgroup_tree: CgroupTree) -> None:
    """Groups of a demo whose process is dead go away; those of a live one stay."""
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    hierarchy = find_hierarchy()
    dead = CgroupTree(hierarchy, done.pid)
    dead.create("node-1", 64 * MIB)
    alive = cgroup_tree.create("node-1", 64 * MIB)
    assert remove_leftovers(hierarchy) == [f"stanch-demo-{done.pid}"]
    assert alive.directory.is_dir()


def test_a_refused_parent_is_one_sentence(tmp_path: Path) -> None:
    """A directory that is no cgroup is refused with a sentence and nothing is left in it."""
    with pytest.raises(CgroupError, match="cannot make a limited group"):
        CgroupTree(Hierarchy(2, tmp_path / "missing"), 1)
    assert list(tmp_path.iterdir()) == []


def test_without_cgroups_the_session_is_watched() -> None:
    """The watching limit adds up the memory of a node's whole session and kills all of it."""
    enclosure = WatchedEnclosure(limit_bytes=1)
    script = "sleep 600 & echo started; wait"
    process = subprocess.Popen(
        enclosure.wrap(["/bin/sh", "-c", script]), start_new_session=True, stdout=subprocess.PIPE
    )
    enclosure.entered(process.pid)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    assert enclosure.used_bytes() > 0
    assert enclosure.struck()
    enclosure.kill()
    assert process.wait(10) == -9
    assert enclosure.used_bytes() == 0
    process.stdout.close()


@pytest.mark.parametrize("session", [0, 1, os.getsid(0)])
def test_foreign_sessions_are_never_killed(session: int) -> None:
    """The machine's own session, and the one this runs in, are refused as targets."""
    with pytest.raises(ValueError, match="nothing killed"):
        kill_session(session)


def test_a_limit_that_nobody_entered_kills_nobody() -> None:
    """Killing an enclosure before its process began touches no process at all."""
    before = set(session_pids(os.getsid(0)))
    WatchedEnclosure(limit_bytes=1).kill()
    assert os.getpid() in before & set(session_pids(os.getsid(0)))
