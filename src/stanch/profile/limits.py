"""Bounds on a profile that somebody else wrote: reading one must not cost the reader its life."""

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What `parse` accepts; beyond one of these it raises ProfileError, which names the limit.

    The defaults are several times the largest profile of a real service. A parse takes at most
    about twice `decompressed_bytes`, and a few hundred bytes for each entry of a table.
    """

    compressed_bytes: int = 64 * _MIB
    """The data as given, gzip or plain."""
    decompressed_bytes: int = 128 * _MIB
    """The protocol buffer after gunzip."""
    sample_types: int = 64
    """Value types of a profile, which are also the values of each sample."""
    samples: int = 1_000_000
    stack_depth: int = 4_096
    """Locations of one sample, and inlined lines of one location."""
    frames: int = 10_000_000
    """Locations of all different stacks together."""
    labels_per_sample: int = 256
    labels: int = 2_000_000
    """Labels of all different sets of labels together."""
    strings: int = 2_000_000
    functions: int = 500_000
    locations: int = 500_000
    lines: int = 2_000_000
    """Lines of all locations together."""
    mappings: int = 65_536
    comments: int = 4_096
