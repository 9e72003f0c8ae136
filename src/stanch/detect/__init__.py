"""Series to verdicts with a rate, a confidence, a forecast and evidence."""

from stanch.detect.finding import (
    LEAKS,
    STAGES,
    Finding,
    InstanceVerdict,
    Stage,
    finding_to_dict,
)
from stanch.detect.fix import Fix
from stanch.detect.groups import Place
from stanch.detect.holder import Holder, Inspection, holder_of
from stanch.detect.service import judge_service
from stanch.detect.settings import Settings
from stanch.detect.telling import finding_facts, finding_title
from stanch.detect.verdict import ServiceVerdict
from stanch.detect.wording import size_text, time_text

__all__ = [
    "LEAKS",
    "STAGES",
    "Finding",
    "Fix",
    "Holder",
    "Inspection",
    "InstanceVerdict",
    "Place",
    "ServiceVerdict",
    "Settings",
    "Stage",
    "finding_facts",
    "finding_title",
    "finding_to_dict",
    "holder_of",
    "judge_service",
    "size_text",
    "time_text",
]
