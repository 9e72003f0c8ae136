"""A state of a watch as an incident gives it: leaks, a healthy target and one that is down."""

from stanch.detect import Finding
from stanch.server.watch import TargetRow, WatchState

MIB = 1024.0 * 1024.0

LEAK = Finding(
    service="shop",
    kind="leak",
    stage="confirmed",
    file="shop/sessions.py",
    line=40,
    function="remember",
    stack=(
        "shop/sessions.py:40 remember",
        "shop/checkout.py:24 check_out",
        "shop/handlers.py:26 create_order",
        "flask/app.py:902 Flask.dispatch_request",
    ),
    rate_bytes_per_second=1.1 * MIB,
    rates=(0.9 * MIB, 1.1 * MIB, 1.3 * MIB),
    rate_bytes_per_request=57_000.0,
    rate_count_per_second=None,
    grown_bytes=70 * MIB,
    confidence=0.83,
    seconds_to_death=(40.0, 47.0, 55.0),
    first_to_die="shop-2",
    instances=("shop-1", "shop-2"),
    evidence=(
        "What remember allocated has grown by 35.0 MiB for 32 s, 1.10 MiB per s; it holds 36 MiB.",
        "It does not slow down: 1.15, 1.10 and 1.09 MiB per s in the three thirds of that time.",
        "100% of what had settled is still alive, also the oldest.",
    ),
    first_seen_unix=1.7e9,
)
NATIVE = Finding(
    service="pricing",
    kind="native leak",
    stage="probable",
    file="",
    line=0,
    function="",
    stack=(),
    rate_bytes_per_second=0.8 * MIB,
    rates=(0.8 * MIB,) * 3,
    rate_bytes_per_request=None,
    rate_count_per_second=None,
    grown_bytes=20 * MIB,
    confidence=0.4,
    seconds_to_death=(80.0, 90.0, 7200.0),
    first_to_die="pricing",
    instances=("pricing",),
    evidence=("Memory the heap does not explain has grown by 20.0 MiB for 25 s, 819 KiB per s.",),
)
CACHE = Finding(
    service="catalog",
    kind="filling cache",
    stage="suspect",
    file="catalog/pages.py",
    line=47,
    function="render",
    stack=("catalog/pages.py:47 render",),
    rate_bytes_per_second=0.1 * MIB,
    rates=(0.1 * MIB,) * 3,
    rate_bytes_per_request=6000.0,
    rate_count_per_second=None,
    grown_bytes=12 * MIB,
    confidence=0.0,
    seconds_to_death=None,
    first_to_die="",
    instances=("catalog",),
    evidence=(
        "What render allocated has grown by 12.0 MiB for 30 s, 102 KiB per s; it holds 12 MiB.",
    ),
)

ROWS = (
    TargetRow("catalog", "catalog", "steady", 70 * MIB, 192 * MIB, 900.0, None),
    TargetRow("shop", "shop-1", "leak", 90 * MIB, 160 * MIB, 1.1 * MIB, (50.0, 60.0, 70.0)),
    TargetRow("shop", "shop-2", "leak", 108 * MIB, 160 * MIB, 1.1 * MIB, (40.0, 47.0, 55.0)),
    TargetRow("pricing", "10.0.0.7:6060", "probable native leak", 99 * MIB, None, 0.8 * MIB, None),
    TargetRow("cart", "cart-1", "down", error="cannot connect: Connection refused"),
)
STATE = WatchState(
    step=14,
    unix_s=1.7e9,
    elapsed_s=35.0,
    rows=ROWS,
    findings=(CACHE, NATIVE, LEAK),
    new=(LEAK,),
    changed=(NATIVE,),
    resolved=(CACHE,),
)
