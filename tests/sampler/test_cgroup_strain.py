"""What holds a cgroup up, from the files of version 2 and 1, of the kernel's own wording."""

from pathlib import Path

from stanch.sampler.cgroup import GroupStrain, MemoryGroup, group_strain

PRESSURE = """\
some avg10=0.22 avg60=0.17 avg300=1.11 total=2500000
full avg10=0.22 avg60=0.16 avg300=1.08 total=1900000
"""
CPU = """\
usage_usec 9000000
user_usec 6000000
system_usec 3000000
nr_periods 400
nr_throttled 120
throttled_usec 1500000
"""


def test_version_2(tmp_path: Path) -> None:
    """Waits for memory, throttling and swap."""
    (tmp_path / "memory.pressure").write_text(PRESSURE)
    (tmp_path / "cpu.stat").write_text(CPU)
    (tmp_path / "memory.swap.current").write_text("4096\n")
    assert group_strain(MemoryGroup(tmp_path, tmp_path, 2)) == GroupStrain(2.5, 1.5, 4096)


def test_version_1_knows_of_swap_only(tmp_path: Path) -> None:
    """The machine's pressure is not the container's, so it is not told."""
    (tmp_path / "memory.stat").write_text("cache 1\ntotal_swap 8192\n")
    assert group_strain(MemoryGroup(tmp_path, tmp_path, 1)) == GroupStrain(None, None, 8192)


def test_what_the_kernel_does_not_tell_is_unknown(tmp_path: Path) -> None:
    """No PSI, no quota, no swap; or nonsense."""
    group = MemoryGroup(tmp_path, tmp_path, 2)
    assert group_strain(group) == GroupStrain(None, None, None)
    (tmp_path / "memory.pressure").write_text("some avg10=0.00 total=soon\n")
    assert group_strain(group) == GroupStrain(None, None, None)
