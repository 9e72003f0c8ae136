"""Which endpoint or task keeps memory, under real servers and frameworks and a real worker."""

import contextlib
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest

from stanch.profile import Profile, parse
from tests.agent.hosts import Runs, ask, heap, runs_directory, wait_for

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="routes are read from contexts of CPython 3.11 to 3.13"
)

KEPT_BYTES = 10_000 * (2033 + 8)
FLASK = """
    from flask import Blueprint, Flask, Response, request
    app = Flask(__name__)
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    KEPT = []
    def keep():
        KEPT.append([bytes(2000) for _ in range(10_000)])
    @app.route("/items/<int:number>", methods=["GET", "POST"])
    def item(number):
        keep()
        return "ok"
    @admin.get("/users/<name>/orders")
    def orders(name):
        keep()
        return "ok"
    @app.get("/stream")
    def stream():
        def parts():
            keep()
            yield "o"
            yield "k"
        return Response(parts())
    @app.get("/quick")
    def quick():
        return "ok"
    app.register_blueprint(admin)
"""
STARLETTE = """
    import asyncio
    from starlette.applications import Starlette
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Mount, Route
    KEPT = []
    def keep():
        KEPT.append([bytes(2000) for _ in range(10_000)])
    async def child():
        await asyncio.sleep(0)
        keep()
    async def tasks(request):
        await asyncio.gather(asyncio.create_task(child()), asyncio.sleep(0.01))
        return PlainTextResponse("ok")
    async def grouped(request):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(keep))
        return PlainTextResponse("ok")
    def threaded(request):
        keep()
        return PlainTextResponse("ok")
    async def streamed(request):
        async def parts():
            yield "o"
            keep()
            yield "k"
        return StreamingResponse(parts())
    async def later(request):
        asyncio.get_running_loop().call_later(0.05, keep)
        return PlainTextResponse("ok")
    async def passes(request, call_next):
        return await call_next(request)
    app = Starlette(routes=[
        Route("/tasks/{number:int}", tasks),
        Route("/later", later),
        Mount("/api", routes=[
            Route("/grouped/{name}", grouped),
            Mount("/v1", routes=[Route("/threaded", threaded, methods=["POST"])]),
        ]),
        Route("/streamed", streamed),
    ])
    app.add_middleware(BaseHTTPMiddleware, dispatch=passes)
"""
DJANGO = """
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import include, path
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50)
    django.setup()
    KEPT = []
    def keep():
        KEPT.append([bytes(2000) for _ in range(10_000)])
    def order(request, number):
        keep()
        return HttpResponse("ok")
    async def slow(request, name):
        keep()
        return HttpResponse("ok")
    urlpatterns = [
        path("orders/<int:number>", order),
        path("shop/", include([path("slow/<str:name>", slow)])),
    ]
    app = get_wsgi_application()
    asgi = get_asgi_application()
"""
FASTAPI = """
    from fastapi import APIRouter, Depends, FastAPI
    app = FastAPI()
    KEPT = []
    def keep():
        KEPT.append([bytes(2000) for _ in range(10_000)])
    def kept_by_dependency():
        keep()
    router = APIRouter(prefix="/users/{user}")
    @router.get("/orders/{order}")
    async def order(user: str, order: int):
        keep()
        return "ok"
    @app.get("/threaded", dependencies=[Depends(kept_by_dependency)])
    def threaded():
        return "ok"
    app.include_router(router, prefix="/v1")
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


def get(port: str, path: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def bound_port(runs: Runs, pattern: str) -> str:
    found: list[str] = wait_for(lambda: re.findall(pattern, runs.output()), runs)
    return found[0]


def live_by(profile: Profile, key: str) -> Counter[str]:
    """Return what `keep` keeps by a label's value, "" for what has none, in bytes."""
    sums: Counter[str] = Counter()
    for sample in profile.samples:
        if any(line.function.name == "keep" for place in sample.locations for line in place.lines):
            sums[dict(sample.labels).get(key, "")] += sample.values[3]
    return sums


def large(by: Counter[str]) -> dict[str, int]:
    """Return how many times KEPT_BYTES each value has, where it is any."""
    return {text: times for text, size in by.items() if (times := round(size / KEPT_BYTES))}


@pytest.mark.parametrize(
    ("options", "thread"),
    [(("-w", "1"), "MainThread"), (("-k", "gthread", "--threads", "3"), "ThreadPoolExecutor-N_N")],
)
def test_flask_under_gunicorn(runs: Runs, options: tuple[str, ...], thread: str) -> None:
    """What a view keeps has its rule's template, blueprint and streaming body included."""
    runs.script("served.py", FLASK)
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running("--interval", "32KiB", "--", *command, *options, "served:app") as process:
        port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) == 2, runs)
        for number in range(3):
            assert get(port, f"/items/{number}") == b"ok"
        assert get(port, "/items/7", "POST") == b"ok"
        assert get(port, "/admin/users/jo/orders") == b"ok"
        assert get(port, "/stream") == b"ok"
        assert get(port, "/quick") == b"ok"
        worker = next(path for path in runs.sockets() if path.stem != str(process.pid))
        found = heap(worker)
    assert large(live_by(found, "route")) == {
        "GET /items/<int:number>": 3,
        "POST /items/<int:number>": 1,
        "GET /admin/users/<name>/orders": 1,
        "GET /stream": 1,
    }
    assert large(live_by(found, "thread")) == {thread: 6}
    assert "stanch" not in runs.output()


def test_starlette_under_uvicorn(runs: Runs) -> None:
    """The template follows the request into child tasks, threads, streams and timers."""
    runs.script("served.py", STARLETTE)
    command = (sys.executable, "-m", "uvicorn", "--port", "0", "served:app")
    with runs.running("--interval", "32KiB", "--", *command) as process:
        port = bound_port(runs, r"Uvicorn running on http://127.0.0.1:(\d+)")
        for path in ("/tasks/1", "/tasks/2", "/later", "/api/grouped/jo", "/streamed"):
            assert get(port, path) == b"ok"
        assert get(port, "/api/v1/threaded", "POST") == b"ok"
        path = next(each for each in runs.sockets() if each.stem == str(process.pid))
        expected = {
            "GET /tasks/{number:int}": 2,
            "GET /later": 1,
            "GET /api/grouped/{name}": 1,
            "POST /api/v1/threaded": 1,
            "GET /streamed": 1,
        }
        wait_for(lambda: large(live_by(heap(path), "route")) == expected, runs)
        assert large(live_by(heap(path), "thread")) == {
            "MainThread": 4,
            "asyncio_N": 1,
            "AnyIO worker thread": 1,
        }
    assert "stanch" not in runs.output()


@pytest.mark.parametrize(
    ("app", "text", "paths", "expected"),
    [
        (
            "asgi",
            DJANGO,
            ("/orders/1", "/orders/2", "/shop/slow/jo"),
            {"GET /orders/<int:number>": 2, "GET /shop/slow/<str:name>": 1},
        ),
        (
            "app",
            FASTAPI,
            ("/v1/users/jo/orders/7", "/threaded"),
            {"GET /v1/users/{user}/orders/{order}": 1, "GET /threaded": 1},
        ),
    ],
    ids=["django", "fastapi"],
)
def test_frameworks_under_uvicorn(
    runs: Runs, app: str, text: str, paths: tuple[str, ...], expected: dict[str, int]
) -> None:
    """Django's and FastAPI's own templates are found, prefixes of included routes too."""
    runs.script("served.py", text)
    command = (sys.executable, "-m", "uvicorn", "--port", "0", "--lifespan", "off", f"served:{app}")
    with runs.running("--interval", "32KiB", "--", *command) as process:
        port = bound_port(runs, r"Uvicorn running on http://127.0.0.1:(\d+)")
        for path in paths:
            assert b"ok" in get(port, path)
        socket = next(each for each in runs.sockets() if each.stem == str(process.pid))
        assert large(live_by(heap(socket), "route")) == expected
    assert "stanch" not in runs.output()


def test_django_under_gunicorn(runs: Runs) -> None:
    """Under WSGI Django's views have their template too, asynchronous ones included."""
    runs.script("served.py", DJANGO)
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running("--interval", "32KiB", "--", *command, "served:app") as process:
        port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) == 2, runs)
        assert get(port, "/orders/1") == get(port, "/shop/slow/jo") == b"ok"
        worker = next(path for path in runs.sockets() if path.stem != str(process.pid))
        assert large(live_by(heap(worker), "route")) == {
            "GET /orders/<int:number>": 1,
            "GET /shop/slow/<str:name>": 1,
        }


@pytest.mark.parametrize("pool", [("solo",), ("prefork", "-c", "2")], ids=["solo", "prefork"])
def test_celery_worker(runs: Runs, pool: tuple[str, ...]) -> None:
    """What a task keeps has its name, also where one task runs inside another, or in a child."""
    broker = runs.directory.parent / "broker"
    broker.mkdir()
    runs.script(
        "jobs.py",
        f"""
        from celery import Celery
        app = Celery("jobs", broker="filesystem://", backend="file://{broker}")
        app.conf.broker_transport_options = {{
            "data_folder_in": {str(broker)!r}, "data_folder_out": {str(broker)!r},
            "control_folder": {str(broker)!r}}}
        KEPT = []
        def keep():
            KEPT.append([bytes(2000) for _ in range(10_000)])
        @app.task
        def inner():
            keep()
        @app.task
        def outer():
            inner.apply(throw=True)
            keep()
        @app.task
        def failing():
            keep()
            raise ValueError("as it should")
        """,
    )
    send = "import jobs; jobs.outer.delay(); jobs.failing.delay(); jobs.inner.delay()"
    runs.finish(sys.executable, "-c", send)
    command = (sys.executable, "-m", "celery", "-A", "jobs", "worker", "-P", *pool)
    options = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO")
    with runs.running("--interval", "32KiB", "--", *command, *options):
        wait_for(lambda: "ready." in runs.output(), runs)

        def kept() -> dict[str, int]:
            found: Counter[str] = Counter()
            for path in runs.sockets():
                with contextlib.suppress(OSError):  # of a process that is just ending
                    found.update(large(live_by(heap(path), "route")))
            return dict(found)

        wait_for(lambda: sum(kept().values()) == 4, runs)
        assert kept() == {"jobs.inner": 2, "jobs.outer": 1, "jobs.failing": 1}


def test_greenlets(runs: Runs) -> None:
    """Each greenlet of gevent has its own label, across switches in the middle of a job."""
    pytest.importorskip("gevent")
    job = runs.script(
        "jobs.py",
        """
        from gevent import monkey
        monkey.patch_all()
        import gevent, stanch, sys
        KEPT = []
        def keep():
            KEPT.append([bytes(2000) for _ in range(10_000)])
        def work(name, times):
            with stanch.label(name):
                for _ in range(times):
                    gevent.sleep(0)
                    keep()
                    gevent.sleep(0)
        gevent.joinall([gevent.spawn(work, name, times)
                        for name, times in (("one", 3), ("two", 2), ("three", 1))])
        keep()
        open(sys.argv[1], "wb").write(stanch.heap_profile())
        """,
    )
    profile = runs.directory / "heap.pb.gz"
    runs.stanch("run", "--interval", "32KiB", "--", sys.executable, job, profile)
    found = large(live_by(parse(profile.read_bytes()), "route"))
    assert found == {"one": 3, "two": 2, "three": 1, "": 1}


def test_labels_off(runs: Runs) -> None:
    """With --labels off samples have none, and the middleware only counts."""
    runs.script("served.py", FLASK)
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running(
        "--interval", "32KiB", "--labels", "off", "--", *command, "served:app"
    ) as process:
        port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) == 2, runs)
        assert get(port, "/items/1") == b"ok"
        worker = next(path for path in runs.sockets() if path.stem != str(process.pid))
        assert large(live_by(heap(worker), "route")) == {"": 1}
        assert set(live_by(heap(worker), "thread")) == {""}


def test_paths_are_bounded_and_counted(runs: Runs) -> None:
    """An application without a router has paths as labels, identities left out, at most 200."""
    runs.script(
        "served.py",
        """
        KEPT = []
        def keep():
            KEPT.append(bytes(200_000))
        def app(environ, start_response):
            keep()
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running("--interval", "10KiB", "--", *command, "served:app") as process:
        port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) == 2, runs)
        for number in range(30):
            get(port, f"/orders/{number}/lines?x={number}")
        for number in range(300):
            get(port, f"/page-{number}x")
        worker = next(path for path in runs.sockets() if path.stem != str(process.pid))
        routes = live_by(heap(worker), "route")
        text = ask(worker, f"/metrics?pid={worker.stem}").decode()
    assert round(routes["GET /orders/{}/lines"], -6) == 6_000_000
    assert 18e6 < routes["GET [other paths]"] < 22e6
    assert len([route for route in routes if route.startswith("GET /page-")]) == 199
    known = re.findall(r'stanch_labels\{.*kind="route"\} (\d+)', text)
    assert 201 in map(int, known), text
