"""What a cgroup's memory is made of: from files as the kernel writes them, and here."""

from pathlib import Path

import pytest

from stanch.sampler.cgroup import group_account

V2_STAT = """anon 104857600
file 52428800
kernel 8388608
kernel_stack 147456
pagetables 1048576
sock 4096
shmem 20971520
file_mapped 12288
inactive_file 25165824
active_file 6291456
slab_reclaimable 3145728
slab_unreclaimable 2097152
slab 5242880
"""
V1_STAT = """cache 1
rss 1
shmem 1
total_cache 52428800
total_rss 104857600
total_shmem 20971520
total_mapped_file 12288
total_inactive_file 25165824
total_active_file 6291456
"""


def tree(root: Path, version: int, files: dict[str, str]) -> Path:
    """Make the files of a process 7 in a cgroup of its own below `root`."""
    if version == 2:
        membership, mount = "0::/pod/app\n", "0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
        directory = root / "sys/fs/cgroup/pod/app"
    else:
        membership = "4:memory:/pod/app\n"
        mount = "0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
        directory = root / "sys/fs/cgroup/memory/pod/app"
    process = root / "proc/7"
    for made in (directory, process):
        made.mkdir(parents=True)
    (process / "cgroup").write_text(membership)
    (process / "mountinfo").write_text(f"30 23 {mount}\n")
    for name, text in files.items():
        (directory / name).write_text(text)
    return root


def test_version_2(tmp_path: Path) -> None:
    """Shared memory is not page cache, reclaimable kernel memory not the rest, and all adds up."""
    usage = 104857600 + 52428800 + 8388608 + 4096 + 65536
    root = tree(tmp_path, 2, {
        "memory.stat": V2_STAT, "memory.current": f"{usage}\n", "memory.max": "268435456\n",
        "memory.peak": "200000000\n", "memory.events": "low 0\noom 3\noom_kill 2\n",
    })  # fmt: skip
    account = group_account(7, root)
    assert account is not None
    assert dict(account.parts()) == {
        "anon": 104857600,
        "shared": 20971520,
        "file": 52428800 - 20971520,
        "kernel": 8388608 + 4096 - 3145728,
        "reclaimable": 3145728,
        "other": 65536,
    }
    assert sum(size for _, size in account.parts()) == usage
    assert account.memory.working_set_bytes == usage - 25165824
    assert (account.memory.limit_bytes, account.peak_bytes) == (268435456, 200000000)
    assert (account.version, account.oom_kills) == (2, 2)


def test_version_2_before_linux_5_18(tmp_path: Path) -> None:
    """Where the kernel's memory is told in parts only, they are added up."""
    text = V2_STAT.replace("kernel 8388608\n", "").replace("sock", "percpu 1024\nsock")
    root = tree(tmp_path, 2, {"memory.stat": text, "memory.current": "300000000\n"})
    account = group_account(7, root)
    assert account is not None
    parts = 5242880 + 147456 + 1048576 + 1024
    assert account.kernel_bytes == parts - 3145728 + 4096
    assert account.peak_bytes is None and account.oom_kills is None


def test_version_1(tmp_path: Path) -> None:
    """Version 1 counts below the group too, and does not tell kernel caches apart."""
    usage = 104857600 + 52428800 + 4194304 + 1000
    root = tree(tmp_path, 1, {
        "memory.stat": V1_STAT, "memory.usage_in_bytes": f"{usage}\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.kmem.usage_in_bytes": "4194304\n", "memory.max_usage_in_bytes": "999\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    })  # fmt: skip
    account = group_account(7, root)
    assert account is not None
    assert dict(account.parts()) == {
        "anon": 104857600,
        "shared": 20971520,
        "file": 52428800 - 20971520,
        "kernel_all": 4194304,
        "other": 1000,
    }
    assert account.memory.limit_bytes is None
    assert account.memory.working_set_bytes == usage - 25165824
    assert (account.version, account.peak_bytes, account.oom_kills) == (1, 999, 1)


def test_the_root_of_version_1(tmp_path: Path) -> None:
    """The root's usage leaves the kernel out, so that the rows do, too."""
    root = tree(tmp_path, 1, {
        "memory.stat": V1_STAT, "memory.usage_in_bytes": f"{104857600 + 52428800}\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.kmem.usage_in_bytes": "500000000\n",
    })  # fmt: skip
    account = group_account(7, root)
    assert account is not None
    assert "kernel_all" not in dict(account.parts())
    assert sum(size for _, size in account.parts()) == 104857600 + 52428800


@pytest.mark.parametrize("version", [1, 2])
def test_files_that_are_missing_or_wrong(tmp_path: Path, version: int) -> None:
    """What the kernel does not say is unknown, and nothing raises."""
    files = {"memory.stat": "anon x\n\nrss\n", "memory.limit_in_bytes": "many\n"}
    account = group_account(7, tree(tmp_path, version, files))
    assert account is not None
    assert account.anon_bytes is None and account.memory.usage_bytes is None
    assert group_account(8, tmp_path) is None


def test_this_machine() -> None:
    """The rows of this process's own group are what its usage is, but for the counters' delay."""
    account = group_account()
    if account is None or account.memory.usage_bytes is None:
        pytest.skip("this machine shows no memory cgroup of this process")
    parts = sum(size for _, size in account.parts())
    assert parts == pytest.approx(account.memory.usage_bytes, rel=0.05, abs=16 << 20)
    assert dict(account.parts())["anon"] > 1 << 20
