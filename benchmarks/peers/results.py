"""What was measured of one tool."""

from dataclasses import dataclass, field

from benchmarks.peers.costs import Ratio, Whole
from benchmarks.peers.probes import Estimates, Reach


@dataclass(slots=True)
class Result:
    """Everything about one tool; what could not be measured is absent and told in `failures`."""

    tool: str
    note: str
    cpu: dict[str, Ratio] = field(default_factory=dict)
    whole: dict[str, list[Whole]] = field(default_factory=dict)
    estimates: Estimates | None = None
    reach: Reach | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def peak_bytes(self, workload: str) -> int | None:
        """Return the least peak of the whole runs; None without one."""
        runs = self.whole.get(workload)
        return min(run.peak_bytes for run in runs) if runs else None

    def file_bytes(self, workload: str) -> int | None:
        """Return the largest size of the files of the whole runs; None without a run."""
        runs = self.whole.get(workload)
        return max(run.file_bytes for run in runs) if runs else None
