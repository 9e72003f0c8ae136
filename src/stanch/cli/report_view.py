"""What a report is about: a profile narrowed down to one sample type, and how values read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stanch.profile import (
    CallGraph,
    CallNode,
    Filters,
    Granularity,
    Profile,
    Trim,
    ValueType,
    apply_filters,
    call_graph,
    call_tree,
    format_percentage,
    format_value,
    report_unit,
    sample_index,
)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """pprof's options, with its defaults. sample_index: a name, a number or "" for the default."""

    sample_index: str = ""
    granularity: Granularity = Granularity.FUNCTIONS
    by_cum: bool = False
    trim: Trim = field(default_factory=Trim)
    unit: str = "minimum"
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True, slots=True)
class Report:
    """A filtered profile, one of its sample types, and the total that percentages refer to.

    idle_filters: names of filters that matched nothing.
    """

    profile: Profile
    index: int
    total: int
    options: ReportOptions
    idle_filters: tuple[str, ...] = ()


def prepare(profile: Profile, options: ReportOptions, base: Profile | None = None) -> Report:
    """Choose the sample type and filter the samples.

    The total is that of `base` if it has one, else of `profile`, before filtering: the sum of
    the absolute values. Raises ProfileError for a sample type that is not there.
    """
    index = sample_index(profile, options.sample_index)
    total = _absolute_total(base, index) if base is not None else 0
    filtered = apply_filters(profile, options.filters)
    return Report(
        filtered.profile,
        index,
        total or _absolute_total(profile, index),
        options,
        filtered.idle,
    )


def tree_of(report: Report) -> CallNode:
    """Build the call tree of the report's sample type."""
    return call_tree(report.profile, (report.index,), report.options.granularity)


def graph_of(report: Report) -> CallGraph:
    """Fold that tree into the report's nodes, trimmed and sorted as the options say."""
    return call_graph(tree_of(report), report.options.trim, by_cum=report.options.by_cum)


def value_type(report: Report) -> ValueType:
    """Give the type and unit of the report's values."""
    return report.profile.sample_types[report.index]


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """How the values of one report are written: all in one unit."""

    unit: str
    to_unit: str
    total: int

    def value(self, value: int) -> str:
        """Write a value with its unit."""
        return format_value(value, self.unit, self.to_unit)

    def percentage(self, value: int) -> str:
        """Write a value's share of the total, six columns wide."""
        return format_percentage(value, self.total)


def value_format(report: Report, values: Sequence[int]) -> ValueFormat:
    """Choose the unit for a report that shows `values`, unless the options name one."""
    unit = value_type(report).unit
    to_unit = report.options.unit
    if to_unit == "minimum" and values:
        to_unit = report_unit([value for value in values if value], report.total, unit)
    return ValueFormat(unit, to_unit, report.total)


def _absolute_total(profile: Profile, index: int) -> int:
    return sum(abs(sample.values[index]) for sample in profile.samples)
