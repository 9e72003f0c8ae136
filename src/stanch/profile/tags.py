"""The labels of samples, which pprof calls tags: selected by, shown as frames, and summed up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from re import Pattern

from stanch.profile.model import Function, Line, Location, Profile, Sample
from stanch.profile.units import format_value


@dataclass(frozen=True, slots=True)
class TagFilter:
    """An expression searched for in the text labels `key`, or in KEY:VALUE of all without one."""

    pattern: Pattern[str]
    key: str = ""

    def matches(self, sample: Sample) -> bool:
        """Return whether a label of the sample matches."""
        if self.key:
            return any(key == self.key and self.pattern.search(text) for key, text in sample.labels)
        return any(self.pattern.search(f"{key}:{text}") for key, text in sample.labels)

    def __str__(self) -> str:
        return f"{self.key}={self.pattern.pattern}" if self.key else self.pattern.pattern


@dataclass(frozen=True, slots=True)
class TagTotals:
    """What the samples with each value of a label add up to, the largest first.

    total: of all values. without: what those add up to that do not have the label.
    """

    key: str
    totals: tuple[tuple[str, int], ...]
    total: int
    without: int


def tag_totals(profile: Profile, index: int) -> tuple[TagTotals, ...]:
    """Add up the sample type at `index` by the values of each label.

    The keys are sorted, those of numbers behind those of texts.
    """
    sums: dict[tuple[bool, str], Counter[str]] = {}
    total = 0
    for sample in profile.samples:
        value = sample.values[index]
        if not value:
            continue
        total += value
        for is_number, pairs in ((False, sample.labels), (True, _numbers(sample))):
            for key, text in pairs:
                sums.setdefault((is_number, key), Counter())[text] += value
    found = []
    for (_, key), by_text in sorted(sums.items()):
        totals = sorted(by_text.items(), key=lambda item: (-abs(item[1]), item[0]))
        of_key = sum(by_text.values())
        found.append(TagTotals(key, tuple(totals), of_key, total - of_key))
    return tuple(found)


def _numbers(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(
        (key, format_value(value, unit, unit) if unit else str(value))
        for key, value, unit in sample.num_labels
    )


def tags_as_roots(profile: Profile, keys: Sequence[str]) -> Profile:
    """Put a frame for each of these labels under the roots of all stacks, the first key outermost.

    The frame's function is the label's value, its file the key.
    """
    made: dict[tuple[str, str], Location] = {}

    def frame(key: str, sample: Sample) -> Location:
        texts = [text for name, text in (*sample.labels, *_numbers(sample)) if name == key]
        name = ", ".join(texts) or f"[no {key}]"
        location = made.get((key, name))
        if location is None:
            line = Line(Function(name, filename=key))
            location = made[key, name] = Location(lines=(line,))
        return location

    return replace(
        profile,
        samples=tuple(
            replace(
                sample,
                locations=(*sample.locations, *(frame(key, sample) for key in reversed(keys))),
            )
            for sample in profile.samples
        ),
    )
