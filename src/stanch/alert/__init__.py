"""Alarms without storms: one for each leak and stage, told once, to whoever wants to know."""

from stanch.alert.alarm import Alarm
from stanch.alert.condition import Condition, condition_of
from stanch.alert.desk import AlarmDesk
from stanch.alert.lifecycle import Policy, Quiet

__all__ = [
    "Alarm",
    "AlarmDesk",
    "Condition",
    "Policy",
    "Quiet",
    "condition_of",
]
