"""Taking out the replica that will die first, before it does: slowly, and never too many."""

from stanch.recycle.plan import Plan, plan
from stanch.recycle.policy import RecyclePolicy
from stanch.recycle.recycler import Recycler
from stanch.recycle.replica import Past, Replica

__all__ = ["Past", "Plan", "RecyclePolicy", "Recycler", "Replica", "plan"]
