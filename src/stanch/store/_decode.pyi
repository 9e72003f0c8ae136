"""The decoder in C of decode/: a pprof profile, decompressed, as columns of rows."""

Frame = tuple[str, str, int, int]

class Decoded:
    """The tables of a profile. Raises ValueError with a clause that says what is wrong."""

    sample_types: tuple[tuple[str, str], ...]
    comments: tuple[str, ...]
    default_type: str
    period_type: tuple[str, str]
    program: tuple[str, str]  # file and build id of the first mapping, "" where it has none
    is_go: bool
    time_nanos: int
    duration_nanos: int
    period: int
    def __new__(cls, data: bytes, /) -> Decoded: ...
    def rows(
        self, known: set[bytes], birth_offset_s: float, band_s: int, /
    ) -> tuple[
        int,  # rows: one for each stack and set of labels with a value above 0
        bytes,  # 16 bytes each: the stack's name
        list[list[tuple[str, str]]],  # sets of labels, the first one empty
        bytes,  # uint32 each: the set of labels
        bytes,  # uint64 each: allocated objects
        bytes,  # uint64 each: allocated bytes
        bytes,  # uint64 each: live objects, or what else is counted
        bytes,  # uint64 each: live bytes
        bytes,  # uint64 each: where the row's births end
        bytes,  # uint32 for each birth: the second its band starts
        bytes,  # uint64 for each birth: the bytes alive
        dict[bytes, list[Frame]],  # the frames of the stacks that are not in `known`, leaf first
    ]:
        """The rows; to be asked once. Births are kept apart where `band_s` is above 0."""

def digest(data: bytes, /) -> bytes:
    """16 bytes, the same for the same data on each machine."""

def order(groups: list[int], group_count: int, stacks: list[bytes], /) -> bytes:
    """The order in which the engine keeps the rows of many profiles, the pieces: of each row its
    place, a uint64 with the piece in its upper and the row in its lower half.

    Rows are ordered by the group of their piece, which is below group_count, and then by stack as a
    number; those of one stack in a group stay as they are. Stacks that a stranger has chosen alike
    may be left out of order. stacks: 16 bytes for each row of a piece. Raises ValueError.
    """

def gather(order: bytes, column: list[bytes], size: int, /) -> bytes:
    """A column in an order: of each piece values of 4, 8 or 16 bytes. Raises ValueError."""

def gather_lists(order: bytes, ends: list[bytes], values: list[bytes], size: int, /) -> bytes:
    """A column of lists in an order: where each ends, uint64, and then all values.

    ends: of each piece where the lists of its rows end, uint64. Raises ValueError.
    """
