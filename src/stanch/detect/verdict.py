"""All that detection says of a service at one moment."""

from dataclasses import dataclass

from stanch.detect.finding import Finding, InstanceVerdict
from stanch.detect.fix import Fix
from stanch.detect.holder import Inspection


@dataclass(frozen=True, slots=True)
class ServiceVerdict:
    """All that can be said of a service at one moment; findings gravest first.

    inspections: retention searches whose answer would tell more. fixes: what became of the leaks of
    earlier releases.
    """

    service: str
    findings: tuple[Finding, ...]
    instances: tuple[InstanceVerdict, ...]
    inspections: tuple[Inspection, ...] = ()
    fixes: tuple[Fix, ...] = ()
