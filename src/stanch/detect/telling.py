"""A finding in one line and in one sentence, as every output tells it."""

from stanch.detect.finding import LEAKS, Finding
from stanch.detect.wording import size_text, time_text


def finding_title(finding: Finding) -> str:
    """What, how sure and where, such as "leak (confirmed) in shop: sessions.py:46 remember"."""
    place = f"{finding.file}:{finding.line} {finding.function}" if finding.file else ""
    if finding.taken_by:
        place += f", {finding.taken_by}"
    what = f"{finding.kind} ({finding.stage})" if finding.kind in LEAKS else finding.kind
    return f"{what} in {finding.service}" + (f": {place}" if place else "")


def finding_facts(finding: Finding) -> str:
    """Rates, forecast, confidence and reach of a finding in one sentence."""
    low, mid, high = finding.rates
    rate = f"{size_text(mid)}/s"
    if len(finding.instances) > 1:
        rate += f" an instance ({size_text(low)} to {size_text(high)} on {len(finding.instances)})"
    parts = [rate]
    if finding.rate_count_per_second is not None:
        parts.insert(0, f"{finding.rate_count_per_second:.2g} more per second")
    if finding.rate_bytes_per_request is not None:
        parts.append(f"{size_text(finding.rate_bytes_per_request)} a request")
    if finding.seconds_to_death is not None:
        soonest, likely, latest = (time_text(seconds) for seconds in finding.seconds_to_death)
        first = f"{finding.first_to_die} " if len(finding.instances) > 1 else ""
        parts.append(f"{first}at its limit in {likely} ({soonest} to {latest})")
    parts.append(f"confidence {finding.confidence:.2f}")
    return ", ".join(parts)
