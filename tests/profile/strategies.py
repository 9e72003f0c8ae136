"""Hypothesis strategies for profiles, over the whole range of what the format can hold."""

from hypothesis import strategies as st

from stanch.profile import Function, Line, Location, Mapping, Profile, Sample, ValueType
from stanch.profile.model import NAMES_WITHOUT_BINARY

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
# What can be written as UTF-8; other text is written with backslashes and does not come back.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)

FUNCTIONS = st.builds(Function, TEXT, TEXT, TEXT, INT64)
LINES = st.builds(Line, FUNCTIONS, INT64, INT64)
MAPPINGS = st.builds(
    Mapping,
    UINT64,
    UINT64,
    UINT64,
    TEXT,
    TEXT,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
).filter(lambda mapping: mapping != NAMES_WITHOUT_BINARY)
LOCATIONS = st.builds(
    Location,
    UINT64,
    st.none() | MAPPINGS,
    st.lists(LINES, max_size=3).map(tuple),
    st.booleans(),
)
VALUE_TYPES = st.builds(ValueType, TEXT, TEXT)
# A label that says nothing is not written: an empty text, or 0 without a unit.
LABELS = st.tuples(TEXT, TEXT.filter(bool))
NUM_LABELS = st.tuples(TEXT, INT64, TEXT).filter(lambda label: label[1] != 0 or label[2] != "")


@st.composite
def profiles(
    draw: st.DrawFn,
    types: tuple[ValueType, ...] | None = None,
    locations: tuple[Location, ...] = (),
    values: st.SearchStrategy[int] = INT64,
) -> Profile:
    """Draw a profile, where given with these sample types and with stacks of these locations."""
    if types is None:
        types = tuple(draw(st.lists(VALUE_TYPES, min_size=1, max_size=4)))
    frames = st.sampled_from(locations) if locations else LOCATIONS
    samples = st.builds(
        Sample,
        st.lists(frames, max_size=5).map(tuple),
        st.tuples(*(values for _ in types)),
        st.lists(LABELS, max_size=2).map(tuple),
        st.lists(NUM_LABELS, max_size=2).map(tuple),
    )
    drawn = tuple(draw(st.lists(samples, max_size=6)))
    used = (each.mapping for sample in drawn for each in sample.locations if each.mapping)
    listed = draw(st.lists(MAPPINGS, max_size=2))
    return Profile(
        sample_types=types,
        samples=drawn,
        default_sample_type=draw(TEXT),
        period_type=draw(VALUE_TYPES),
        period=draw(INT64),
        time_nanos=draw(INT64),
        duration_nanos=draw(INT64),
        comments=tuple(draw(st.lists(TEXT, max_size=3))),
        mappings=tuple(dict.fromkeys([*listed, *used])),
        drop_frames=draw(TEXT),
        keep_frames=draw(TEXT),
        doc_url=draw(TEXT),
    )
