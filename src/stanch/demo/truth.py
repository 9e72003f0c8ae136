"""The truth about the incident: which line of which service really leaks.

Only the verdict at the very end reads this table; nothing of it reaches the detector, which runs
against the services as it would against anybody's.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeededLeak:
    """A leak that was put into a service.

    A finding names it when its file ends with `file` and its function is one of `functions`:
    those that allocate most of what is kept, and those on the way to where it is kept. `also` are
    the (file, function) pairs that allocate the rest of what the leak keeps, such as the request's
    own strings: to point there is true, but does not name the leak. Where a C library takes the
    memory from malloc, its `c_function` must be named together with the Python line that calls it;
    to say that native memory grows is true, but not enough. `holders` are the names under which the
    memory is kept; the path to its root must show one of them.
    """

    service: str
    what: str
    file: str
    functions: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    c_function: str = ""
    holders: tuple[str, ...] = ()


SEEDED_LEAKS = (
    SeededLeak(
        service="shop",
        what="sessions never expire: touched is wall time, the deadline monotonic",
        file="shop/sessions.py",
        functions=("remember",),
        also=(("shop/basket.py", "price"), ("shop/checkout.py", "check_out")),
        holders=("shop/sessions.py module global _sessions",),
    ),
    SeededLeak(
        service="notify",
        what="tasks wait for ever for a receipt that does not come",
        file="notify/deliveries.py",
        functions=("compose", "Deliveries._follow", "Deliveries.dispatch"),
        also=(("notify/app.py", "create_app.<locals>.send"),),
        holders=("Deliveries._following", "Deliveries._receipts"),
    ),
    SeededLeak(
        service="pricing",
        what="C tiers are not closed on the early return, free_node never runs",
        file="pricing/tiers.py",
        functions=("TierList.__init__",),
        c_function="tiers_build",
    ),
    SeededLeak(
        service="ledger",
        what="idempotency keys are swept by the wrong key",
        file="ledger/ledger.go",
        functions=("main.(*Ledger).Post",),
        also=(("ledger/main.go", "main.routes.func2"),),
    ),
)

HEALTHY = ("catalog",)
