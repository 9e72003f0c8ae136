"""How processes ended: why, with what in memory, and what had been foretold."""

from stanch.deaths.autopsy import Autopsy, autopsy_of, with_autopsy
from stanch.deaths.book import deaths, profile_of, record
from stanch.deaths.cause import Cause, Evidence, cause_of
from stanch.deaths.death import Death, Forecast
from stanch.deaths.witness import DeathWatch

__all__ = [
    "Autopsy",
    "Cause",
    "Death",
    "DeathWatch",
    "Evidence",
    "Forecast",
    "autopsy_of",
    "cause_of",
    "deaths",
    "profile_of",
    "record",
    "with_autopsy",
]
