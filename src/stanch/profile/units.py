"""Values for people: the units of profiles, scaled and written as pprof writes them."""

from dataclasses import dataclass

_DEFAULT = "minimum"


@dataclass(frozen=True, slots=True)
class _Unit:
    symbol: str
    names: tuple[str, ...]  # in lower case, without a plural "s"
    factor: float


@dataclass(frozen=True, slots=True)
class _Kind:
    """Units that convert into each other, smallest first; `default` is for what is below all."""

    units: tuple[_Unit, ...]
    default: _Unit

    def find(self, name: str) -> _Unit | None:
        name = name.lower()
        if len(name) > 2:
            name = name.removesuffix("s")
        return next((unit for unit in self.units if name in unit.names), None)


_BYTE = _Unit("B", ("b", "byte"), 1)
_SECOND = _Unit("s", ("s", "sec", "second"), 1e9)
_KINDS = (
    _Kind(
        (
            _BYTE,
            _Unit("kB", ("kb", "kbyte", "kilobyte"), 2.0**10),
            _Unit("MB", ("mb", "mbyte", "megabyte"), 2.0**20),
            _Unit("GB", ("gb", "gbyte", "gigabyte"), 2.0**30),
            _Unit("TB", ("tb", "tbyte", "terabyte"), 2.0**40),
            _Unit("PB", ("pb", "pbyte", "petabyte"), 2.0**50),
        ),
        default=_BYTE,
    ),
    _Kind(
        (
            _Unit("ns", ("ns", "nanosecond"), 1),
            _Unit("us", ("us", "μs", "microsecond"), 1e3),
            _Unit("ms", ("ms", "millisecond"), 1e6),
            _SECOND,
            _Unit("hrs", ("hr", "hour"), 3600e9),
        ),
        default=_SECOND,
    ),
)
_PLAIN = ("count", "sample", "unit", "minimum", "auto")


def scale_value(value: float, unit: str, to: str = _DEFAULT) -> tuple[float, str]:
    """Convert `value` from `unit` to `to`, or to the unit that suits it where `to` is "minimum".

    Gives the number and its unit's symbol, which is "" for a count. A unit of another kind than
    `unit` counts as the kind's default: bytes or seconds.
    """
    if value < 0:
        scaled, symbol = scale_value(-value, unit, to)
        return -scaled, symbol
    for kind in _KINDS:
        given = kind.find(unit)
        if given is None:
            continue
        base = value * given.factor
        if to in ("minimum", "auto"):
            fitting = [each for each in kind.units if base >= each.factor]
            target = fitting[-1] if fitting else kind.default
        else:
            target = kind.find(to) or kind.default
        return base / target.factor, target.symbol
    return float(value), "" if to in _PLAIN else to


def format_value(value: float, unit: str, to: str = _DEFAULT) -> str:
    """Write `value`, which is in `unit`, with at most two decimals and its unit, as in "1.50MB"."""
    scaled, symbol = scale_value(value, unit, to)
    number = f"{scaled:.2f}".removesuffix(".00")
    return "0" if number in ("0", "-0") else number + symbol


def format_percentage(value: int, total: int) -> str:
    """Write the size of `value` in percent of `total`, at least six columns wide."""
    percentage = abs(value / total) * 100 if total else 0.0
    if 99.95 <= percentage <= 100.05:
        return "  100%"
    if percentage >= 1:
        return f"{percentage:5.2f}%"
    return f"{percentage:5.2g}%"


def report_unit(values: list[int], total: int, unit: str) -> str:
    """Choose one unit for a report on `values`, none of which is 0: that of the smallest.

    Where the whole is more than 100 times larger, the unit may be larger too, as long as the
    smallest still shows in two decimals.
    """
    smallest = min(map(abs, values), default=0) or total
    _, symbol = scale_value(smallest, unit)
    if symbol != scale_value(total, unit)[1] and smallest * 100 < total:
        _, symbol = scale_value(smallest * 100, unit)
    return symbol or unit
