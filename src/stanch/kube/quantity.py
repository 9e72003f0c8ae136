"""Quantities as Kubernetes writes them: 128974848, 129e6, 129M, 123Mi, 100m.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE]?)")
_POWERS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
_POWERS |= {letter: 1000.0**power for power, letter in enumerate("kMGTPE", start=1)}
_POWERS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}


def quantity(text: object) -> float | None:
    """Return the number that a quantity stands for, None when it is none."""
    match = _QUANTITY.fullmatch(str(text).strip()) if isinstance(text, str | int | float) else None
    if match is None:
        return None
    number, suffix = match.groups()
    if suffix[:1] in ("e", "E") and suffix[1:]:
        return float(number + suffix) if suffix != "Ei" else float(number) * _POWERS["Ei"]
    return float(number) * _POWERS[suffix]
