"""Takes allocator hooks out and puts them back, as any other profiler would, by CPython's C API.

The sampler keeps its table and caches meanwhile. What it sampled and is freed without hooks leaves
stale entries in the table.
"""

import ctypes

DOMAINS = (0, 1, 2)  # PYMEM_DOMAIN_RAW, _MEM, _OBJ


class Allocator(ctypes.Structure):
    """PyMemAllocatorEx."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]


def installed() -> list[Allocator]:
    """Return the allocators of all domains that are in place now."""
    found = [Allocator() for _ in DOMAINS]
    for domain, allocator in zip(DOMAINS, found, strict=True):
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(allocator))
    return found


def install(allocators: list[Allocator]) -> None:
    """Put these in place."""
    for domain, allocator in zip(DOMAINS, allocators, strict=True):
        ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(allocator))
