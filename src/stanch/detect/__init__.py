"""Series to verdicts with a rate, a confidence, a forecast and evidence."""

from stanch.detect.finding import (
    LEAKS,
    STAGES,
    Finding,
    InstanceVerdict,
    ServiceVerdict,
    finding_to_dict,
)
from stanch.detect.service import judge_service
from stanch.detect.settings import Settings
from stanch.detect.wording import size_text, time_text

__all__ = [
    "LEAKS",
    "STAGES",
    "Finding",
    "InstanceVerdict",
    "ServiceVerdict",
    "Settings",
    "finding_to_dict",
    "judge_service",
    "size_text",
    "time_text",
]
