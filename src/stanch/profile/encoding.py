"""A Profile to pprof bytes, quickly: the agent does this inside other people's production.

Equal profiles encode to equal bytes. Ids count from 1 in the order of first use. Values are
recognised by identity first and by equality only once per object, so what costs time is the number
of different objects, not of frames.
"""

import zlib

from stanch.profile.errors import ProfileError
from stanch.profile.model import (
    NAMES_WITHOUT_BINARY,
    Function,
    Location,
    Mapping,
    Profile,
    Sample,
    ValueType,
)
from stanch.profile.wire import bytes_field, number_field, varint

_GZIP_WINDOW = 31  # zlib's "wbits" for a gzip header and checksum; the header's time is then 0


def encode(profile: Profile, *, compress: bool = True) -> bytes:
    """Write `profile` as protocol buffer, gzipped at the fastest level unless `compress` is false.

    Text that is not valid Unicode is written with backslashes. A label that is an empty text, or
    0 without a unit, cannot be told from an absent one in this format and is left out.
    Raises ProfileError when a sample does not have a value for each sample type, and when a number
    does not fit in 64 bits.
    """
    plain = _Encoder(profile).message()
    if not compress:
        return plain
    gzip = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, _GZIP_WINDOW)
    return gzip.compress(plain) + gzip.flush()


class _Encoder:
    """The tables of one profile while it is written, each entry as its encoded field."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._strings: dict[str, int] = {"": 0}
        self._mapping_fields: list[bytes] = []
        self._mappings: dict[Mapping, int] = {}
        self._function_fields: list[bytes] = []
        self._functions: dict[Function, int] = {}
        self._functions_by_identity: dict[int, int] = {}
        self._location_fields: list[bytes] = []
        self._locations: dict[bytes, bytes] = {}
        self._locations_by_identity: dict[int, bytes] = {}
        self._stacks_by_identity: dict[int, bytes] = {}
        self._labels: dict[tuple[str, int | str, str], bytes] = {}

    def message(self) -> bytes:
        """Encode the whole. Raises ProfileError."""
        profile = self._profile
        if not profile.sample_types:
            raise ProfileError("a profile without a sample type was given; expected at least one")
        types = [bytes_field(1, self._value_type(each)) for each in profile.sample_types]
        for mapping in profile.mappings:
            self._mapping(mapping)
        samples = [self._sample(sample) for sample in profile.samples]
        # The first mapping is the main binary, so the one that is none stands last.
        stand_in = self._mappings.get(NAMES_WITHOUT_BINARY)
        if stand_in is not None:
            self._mapping_fields.append(self._mapping_fields.pop(stand_in - 1))
        header = [
            number_field(7, self._string(profile.drop_frames)),
            number_field(8, self._string(profile.keep_frames)),
            number_field(9, profile.time_nanos),
            number_field(10, profile.duration_nanos),
            bytes_field(11, self._value_type(profile.period_type)),
            number_field(12, profile.period),
            bytes_field(13, b"".join(varint(self._string(text)) for text in profile.comments)),
            number_field(14, self._string(profile.default_sample_type)),
            number_field(15, self._string(profile.doc_url)),
        ]
        strings = [
            bytes_field(6, text.encode("utf-8", "backslashreplace")) for text in self._strings
        ]
        tables = self._mapping_fields + self._location_fields + self._function_fields
        return b"".join(types + samples + tables + strings + header)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _value_type(self, value_type: ValueType) -> bytes:
        kind, unit = self._string(value_type.type), self._string(value_type.unit)
        return number_field(1, kind) + number_field(2, unit)

    def _sample(self, sample: Sample) -> bytes:
        expected = len(self._profile.sample_types)
        if len(sample.values) != expected:
            raise ProfileError(
                f"a sample with {len(sample.values)} values was given; expected {expected},"
                " one for each sample type of the profile"
            )
        stack = sample.locations
        stack_field = self._stacks_by_identity.get(id(stack))
        if stack_field is None:
            stack_field = self._stacks_by_identity[id(stack)] = self._stack(stack)
        body = stack_field + bytes_field(2, b"".join(map(varint, sample.values)))
        if sample.labels or sample.num_labels:
            body += self._label_fields(sample)
        return bytes_field(2, body)

    def _stack(self, stack: tuple[Location, ...]) -> bytes:
        known = self._locations_by_identity
        try:
            references = b"".join(map(known.__getitem__, map(id, stack)))
        except KeyError:
            references = b"".join(map(self._location, stack))
        return bytes_field(1, references)

    def _label_fields(self, sample: Sample) -> bytes:
        fields = []
        entries: tuple[tuple[str, int | str, str], ...] = (
            *((key, text, "") for key, text in sample.labels),
            *sample.num_labels,
        )
        for entry in entries:
            field = self._labels.get(entry)
            if field is None:
                field = self._labels[entry] = self._label(*entry)
            fields.append(field)
        return b"".join(fields)

    def _label(self, key: str, value: int | str, unit: str) -> bytes:
        if isinstance(value, str):
            said = number_field(2, self._string(value))
        else:
            said = number_field(3, value) + number_field(4, self._string(unit))
        return bytes_field(3, number_field(1, self._string(key)) + said) if said else b""

    def _location(self, location: Location) -> bytes:
        """Give the location's id as a varint, adding it to the table when it is new."""
        reference = self._locations_by_identity.get(id(location))
        if reference is None:
            body = self._location_body(location)
            reference = self._locations.get(body)
            if reference is None:
                key = len(self._locations) + 1
                self._location_fields.append(bytes_field(4, number_field(1, key) + body))
                reference = self._locations[body] = varint(key)
            self._locations_by_identity[id(location)] = reference
        return reference

    def _location_body(self, location: Location) -> bytes:
        """Encode all but the id; by this, locations are told apart: hashing them costs more."""
        lines = [
            bytes_field(
                4,
                number_field(1, self._function(line.function))
                + number_field(2, line.line)
                + number_field(3, line.column),
            )
            for line in location.lines
        ]
        mapping = location.mapping or (NAMES_WITHOUT_BINARY if lines else None)
        return (
            number_field(2, self._mapping(mapping) if mapping else 0)
            + number_field(3, location.address)
            + b"".join(lines)
            + number_field(5, location.is_folded)
        )

    def _function(self, function: Function) -> int:
        key = self._functions_by_identity.get(id(function))
        if key is None:
            key = self._functions.get(function)
            if key is None:
                key = self._add_function(function)
            self._functions_by_identity[id(function)] = key
        return key

    def _add_function(self, function: Function) -> int:
        key = self._functions[function] = len(self._functions) + 1
        body = (
            number_field(1, key)
            + number_field(2, self._string(function.name))
            + number_field(3, self._string(function.system_name))
            + number_field(4, self._string(function.filename))
            + number_field(5, function.start_line)
        )
        self._function_fields.append(bytes_field(5, body))
        return key

    def _mapping(self, mapping: Mapping) -> int:
        key = self._mappings.get(mapping)
        if key is None:
            key = self._mappings[mapping] = len(self._mappings) + 1
            body = (
                number_field(1, key)
                + number_field(2, mapping.start)
                + number_field(3, mapping.limit)
                + number_field(4, mapping.offset)
                + number_field(5, self._string(mapping.file))
                + number_field(6, self._string(mapping.build_id))
                + number_field(7, mapping.has_functions)
                + number_field(8, mapping.has_filenames)
                + number_field(9, mapping.has_line_numbers)
                + number_field(10, mapping.has_inline_frames)
            )
            self._mapping_fields.append(bytes_field(3, body))
        return key
