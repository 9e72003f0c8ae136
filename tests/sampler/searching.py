"""What programs of the retention tests begin with: short ways to search and to read the answer."""

import textwrap

PREAMBLE = """
import collections, functools, gc, os, sys, threading, time
from stanch import sampler
from stanch.sampler import retention
from stanch.sampler.holders import OF_C, merge_paths

def look(function, **options):
    image = sampler.snapshot()
    stacks = [n for n, stack in enumerate(image.stacks)
              if any(frame[0].name.endswith(function) for frame in stack.frames
                     if isinstance(frame, tuple))]
    return retention.search(stacks, **options)

def texts(found):
    '''Each way from a root, as "reference (type) -> ...", with its samples.'''
    ways = collections.Counter()
    def follow(reference, way):
        if reference.kept:
            ways[" -> ".join(way)] += reference.kept
        for below in reference.held.values():
            name = below.text or below.type
            follow(below, [*way, f"{below.text} ({below.type})" if below.text and below.type
                           else name])
    follow(merge_paths(found), [])
    return ways

def main_way(function, **options):
    (way, samples), *_ = texts(look(function, **options)).most_common()
    return way

def expect(wanted, function, **options):
    found = main_way(function, **options)
    assert found == wanted, f"{found!r} is not {wanted!r}"
"""


def program(text: str) -> str:
    """Return a program that may use the functions above."""
    return PREAMBLE + textwrap.dedent(text)
