"""Autopsies: what a killed process held, read from the table file that it left behind."""

from pathlib import Path

from stanch.profile import Granularity, call_graph, call_tree
from stanch.sampler import TableError, read_table, table_profile

from .record import Autopsy, Place

_TABLES = "*.stanch"


def autopsy(service: str, node: str, tables: Path) -> Autopsy | None:
    """Read the tables of one life of a node and return that of the process which held the most.

    None when there is no table that can be read, or none holds anything.
    """
    found = [_of_table(service, node, path) for path in sorted(tables.glob(_TABLES))]
    return max(
        (one for one in found if one is not None), key=lambda one: one.live_bytes, default=None
    )


def _of_table(service: str, node: str, path: Path) -> Autopsy | None:
    try:
        image = read_table(path)
    except (OSError, TableError):
        return None  # A process that was killed while it made its table left none to read.
    profile = table_profile(image)
    inuse = [one.type for one in profile.sample_types].index("inuse_space")
    graph = call_graph(call_tree(profile, [inuse], Granularity.LINES))
    if not graph.nodes:
        return None
    top = graph.nodes[0]
    live_bytes = sum(sample.values[inuse] for sample in profile.samples)
    place = Place(top.frame.file, top.frame.line, top.frame.name)
    return Autopsy(service, node, image.pid, place, top.flat, live_bytes)
