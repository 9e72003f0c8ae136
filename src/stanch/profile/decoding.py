"""pprof bytes to a Profile, within Limits.

Accepts what Go's own reader accepts: any order of fields, packed or not, unknown fields, strings
that are not UTF-8 (shown with backslashes). Refuses with ProfileError what that refuses: references
to nothing, ids given twice, samples of the wrong length, fields of the wrong type.
"""

from stanch.profile.errors import ProfileError
from stanch.profile.inflate import inflate, recognise
from stanch.profile.limits import Limits
from stanch.profile.model import (
    NAMES_WITHOUT_BINARY,
    Function,
    Line,
    Location,
    Mapping,
    Profile,
    Sample,
    ValueType,
)
from stanch.profile.wire import (
    expect_bytes,
    expect_number,
    read_fields,
    read_numbers,
    read_packed,
    signed,
    split_varints,
    varint,
)

_DEFAULT_LIMITS = Limits()
_Labels = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, int, str], ...]]

# Fields of profile.proto's message Profile. The repeated ones name their limit.
_TABLES = {
    1: "sample_types",
    2: "samples",
    3: "mappings",
    4: "locations",
    5: "functions",
    6: "strings",
}
_DROP_FRAMES, _KEEP_FRAMES, _TIME, _DURATION, _PERIOD_TYPE, _PERIOD = 7, 8, 9, 10, 11, 12
_COMMENT, _DEFAULT_SAMPLE_TYPE, _DOC_URL = 13, 14, 15
_NUMBERS = (
    _DROP_FRAMES,
    _KEEP_FRAMES,
    _TIME,
    _DURATION,
    _PERIOD,
    _DEFAULT_SAMPLE_TYPE,
    _DOC_URL,
)


def parse(data: bytes, limits: Limits = _DEFAULT_LIMITS) -> Profile:
    """Read a profile, gzip or plain.

    Raises ProfileError, and nothing else, when `data` is damaged, is something else or passes one
    of the limits. Values and order are kept; what no sample refers to, mappings apart, is not.
    """
    plain = inflate(data, limits)
    try:
        return _Decoder(plain, limits).profile()
    except ProfileError as error:
        if known := recognise(plain):
            raise ProfileError(known) from error
        raise


class _Decoder:
    """The tables of one profile while it is read.

    Fields come in any order, so they are first put aside by number and then resolved in the
    order of their references: strings, functions, mappings, locations, samples.
    """

    def __init__(self, plain: bytes, limits: Limits) -> None:
        self._limits = limits
        self._tables: dict[int, list[bytes]] = {field: [] for field in _TABLES}
        self._numbers = dict.fromkeys(_NUMBERS, 0)
        self._comments: list[int] = []
        self._period_type = b""
        self._put_aside(plain)
        self._strings = [text.decode("utf-8", "backslashreplace") for text in self._tables[6]]
        if self._strings[:1] != [""]:
            raise ProfileError(
                "the profile's string table is missing or does not begin with an empty string;"
                " expected a pprof profile, so check where the data comes from"
            )

    def profile(self) -> Profile:
        """Resolve everything. Raises ProfileError."""
        types = tuple(self._value_type(message) for message in self._tables[1])
        if not types:
            raise ProfileError(
                "the profile has no sample type; expected at least one,"
                " so check that the data is a pprof profile"
            )
        mappings = self._mappings()
        locations = self._locations(mappings, self._functions())
        numbers = self._numbers
        return Profile(
            sample_types=types,
            samples=self._samples(locations, len(types)),
            default_sample_type=self._string(numbers[_DEFAULT_SAMPLE_TYPE]),
            period_type=self._value_type(self._period_type),
            period=signed(numbers[_PERIOD]),
            time_nanos=signed(numbers[_TIME]),
            duration_nanos=signed(numbers[_DURATION]),
            comments=tuple(self._string(index) for index in self._comments),
            mappings=tuple(dict.fromkeys(filter(None, mappings.values()))),
            drop_frames=self._string(numbers[_DROP_FRAMES]),
            keep_frames=self._string(numbers[_KEEP_FRAMES]),
            doc_url=self._string(numbers[_DOC_URL]),
        )

    def _put_aside(self, plain: bytes) -> None:
        tables = self._tables
        room = {field: getattr(self._limits, name) for field, name in _TABLES.items()}
        for field, value in read_fields(plain):
            if field in tables:
                table = tables[field]
                table.append(expect_bytes(value))
                if len(table) > room[field]:
                    raise self._beyond(_TABLES[field])
            elif field in self._numbers:
                self._numbers[field] = expect_number(value)
            elif field == _PERIOD_TYPE:
                self._period_type = expect_bytes(value)
            elif field == _COMMENT:
                self._comments += _repeated_numbers(value)
                if len(self._comments) > self._limits.comments:
                    raise self._beyond("comments")

    def _beyond(self, limit: str) -> ProfileError:
        return ProfileError(
            f"the profile has more than {getattr(self._limits, limit):,} {limit.replace('_', ' ')};"
            f" expected fewer, so take a smaller one or raise Limits.{limit}"
        )

    def _string(self, index: int) -> str:
        if index >= len(self._strings):
            raise _dangling("string", index)
        return self._strings[index]

    def _value_type(self, message: bytes) -> ValueType:
        _, kind, unit = read_numbers(message, 2)
        return ValueType(self._string(kind), self._string(unit))

    def _mappings(self) -> dict[int, Mapping | None]:
        mappings: dict[int, Mapping | None] = {}
        interned: dict[Mapping, Mapping] = {}
        for message in self._tables[3]:
            (_, key, start, limit, offset, file, build_id, *has) = read_numbers(message, 10)
            mapping = Mapping(
                start,
                limit,
                offset,
                self._string(file),
                self._string(build_id),
                *(bool(flag) for flag in has),
            )
            _refuse_id("mapping", key, key in mappings)
            known = mapping != NAMES_WITHOUT_BINARY
            mappings[key] = interned.setdefault(mapping, mapping) if known else None
        return mappings

    def _functions(self) -> dict[int, Function]:
        functions: dict[int, Function] = {}
        interned: dict[tuple[str, str, str, int], Function] = {}
        for message in self._tables[5]:
            _, key, name, system_name, filename, start_line = read_numbers(message, 5)
            value = (
                self._string(name),
                self._string(system_name),
                self._string(filename),
                signed(start_line),
            )
            function = interned.get(value)
            if function is None:
                function = interned[value] = Function(*value)
            _refuse_id("function", key, key in functions)
            functions[key] = function
        return functions

    def _locations(
        self, mappings: dict[int, Mapping | None], functions: dict[int, Function]
    ) -> dict[bytes, Location]:
        """Give the locations by their id as a varint, which is how samples refer to them."""
        locations: dict[bytes, Location] = {}
        interned: dict[tuple[object, ...], Location] = {}
        total_lines = 0
        for message in self._tables[4]:
            key, mapping_id, address, folded = 0, 0, 0, 0
            lines: list[Line] = []
            for field, value in read_fields(message):
                if field == 1:
                    key = expect_number(value)
                elif field == 2:
                    mapping_id = expect_number(value)
                elif field == 3:
                    address = expect_number(value)
                elif field == 4:
                    lines.append(_line(expect_bytes(value), functions))
                    if len(lines) > self._limits.stack_depth:
                        raise self._beyond("stack_depth")
                elif field == 5:
                    folded = expect_number(value)
            total_lines += len(lines)
            if total_lines > self._limits.lines:
                raise self._beyond("lines")
            # Like pprof, a mapping that is not in the table is none: names do not need it.
            mapping = mappings.get(mapping_id)
            identity = (
                address,
                id(mapping),
                bool(folded),
                *((id(line.function), line.line, line.column) for line in lines),
            )
            location = interned.get(identity)
            if location is None:
                location = Location(address, mapping, tuple(lines), bool(folded))
                interned[identity] = location
            reference = varint(key)
            _refuse_id("location", key, reference in locations)
            locations[reference] = location
        return locations

    def _samples(self, locations: dict[bytes, Location], types: int) -> tuple[Sample, ...]:
        stacks: dict[bytes, tuple[Location, ...]] = {}
        label_sets: dict[tuple[bytes, ...], _Labels] = {(): ((), ())}
        frames = total_labels = 0
        samples: list[Sample] = []
        for message in self._tables[2]:
            references: list[bytes] = []
            values: list[int] = []
            labels: list[bytes] = []
            for field, value in read_fields(message):
                if field == 1:
                    references.append(
                        varint(value) if isinstance(value, int) else expect_bytes(value)
                    )
                    if len(references) > self._limits.stack_depth:
                        raise self._beyond("stack_depth")
                elif field == 2:
                    values += _repeated_numbers(value)
                    if len(values) > types:
                        break  # the check below says so; more of it would only take memory
                elif field == 3:
                    labels.append(expect_bytes(value))
                    if len(labels) > self._limits.labels_per_sample:
                        raise self._beyond("labels_per_sample")
            if len(values) != types:
                count = f"more than {types}" if len(values) > types else len(values)
                raise ProfileError(
                    f"a sample of the profile has {count} values; expected {types},"
                    " one for each sample type, so take the profile again"
                )
            packed = references[0] if len(references) == 1 else b"".join(references)
            stack = stacks.get(packed)
            if stack is None:
                stack = stacks[packed] = self._stack(packed, locations)
                frames += len(stack)
                if frames > self._limits.frames:
                    raise self._beyond("frames")
            label_set = label_sets.get(tuple(labels))
            if label_set is None:
                label_set = label_sets[tuple(labels)] = self._labels(labels)
                total_labels += len(labels)
                if total_labels > self._limits.labels:
                    raise self._beyond("labels")
            samples.append(Sample(stack, tuple(map(signed, values)), *label_set))
        return tuple(samples)

    def _stack(self, packed: bytes, locations: dict[bytes, Location]) -> tuple[Location, ...]:
        references = split_varints(packed)
        if len(references) > self._limits.stack_depth:
            raise self._beyond("stack_depth")
        try:
            return tuple(map(locations.__getitem__, references))
        except KeyError:
            pass  # a dangling id, or a valid one that is written longer than need be
        stack = []
        for key in read_packed(packed):
            location = locations.get(varint(key))
            if location is None:
                raise _dangling("location", key)
            stack.append(location)
        return tuple(stack)

    def _labels(self, messages: list[bytes]) -> _Labels:
        texts: list[tuple[str, str]] = []
        numbers: list[tuple[str, int, str]] = []
        for message in messages:
            _, key, text, number, unit = read_numbers(message, 4)
            if text:
                texts.append((self._string(key), self._string(text)))
            elif number or unit:
                numbers.append((self._string(key), signed(number), self._string(unit)))
        return tuple(texts), tuple(numbers)


def _line(message: bytes, functions: dict[int, Function]) -> Line:
    _, function_id, line, column = read_numbers(message, 3)
    function = functions.get(function_id)
    if function is None:
        raise _dangling("function", function_id)
    return Line(function, signed(line), signed(column))


def _repeated_numbers(value: int | bytes | None) -> list[int]:
    """Read one occurrence of a repeated number, which may be packed."""
    return [value] if isinstance(value, int) else read_packed(expect_bytes(value))


def _refuse_id(kind: str, key: int, taken: bool) -> None:
    if not key or taken:
        fault = "with the same id" if taken else "with id"
        raise ProfileError(
            f"the profile has a {kind} {fault} {key}; expected different ids above 0,"
            " so take the profile again"
        )


def _dangling(kind: str, key: int) -> ProfileError:
    return ProfileError(
        f"the profile refers to {kind} {key}, which it does not have; expected a whole profile,"
        " so take it again"
    )
