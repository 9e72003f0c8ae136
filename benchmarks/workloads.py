"""The work that the sampler's cost is measured on.

JSON, object churn, a Flask request loop, numpy arithmetic, and four threads of object churn.
"""

import json
import random
import threading
from collections.abc import Callable
from typing import Any


def json_documents() -> Callable[[], None]:
    """Return a round of encoding and decoding a hundred mixed documents."""
    chance = random.Random(1)
    documents = [
        {
            "id": i,
            "uuid": f"{chance.getrandbits(128):032x}",
            "score": chance.random() * 1e3,
            "name": f"user-{i}-\u00e9\u4e2d",
            "text": "lorem ipsum dolor sit amet " * chance.randint(1, 30),
            "tags": [f"tag{chance.randint(0, 500)}" for _ in range(chance.randint(0, 20))],
            "numbers": [chance.random() for _ in range(chance.randint(0, 30))],
            "nested": {f"k{j}": {"a": j, "b": ["x" * j, j * 1.5]} for j in range(8)},
        }
        for i in range(100)
    ]
    kept: list[Any] = []

    def work() -> None:
        kept[:] = [json.loads(text) for text in [json.dumps(d) for d in documents]]

    return work


class Node:
    """A binary tree's node."""

    def __init__(self, left: "Node | None", right: "Node | None") -> None:
        self.left = left
        self.right = right


def tree(depth: int) -> Node:
    """Return a full binary tree."""
    return Node(None, None) if depth == 0 else Node(tree(depth - 1), tree(depth - 1))


def object_churn() -> Callable[[], None]:
    """Return a round that makes and drops trees, records and strings, and keeps a few."""
    live = [tree(14)]
    kept: list[Any] = []

    def work() -> None:
        for depth in (6, 8, 10):
            live.append(tree(depth))
            live.pop()
        kept.append({f"key-{i}": {"id": i, "v": [i, str(i)], "f": i * 0.5} for i in range(1500)})
        if len(kept) > 20:
            kept.pop(0)
        words = [f"a{i}b".upper() + "-" for i in range(2000)]
        ",".join(words).split(",")

    return work


def flask_requests(wrap: Callable[[Any], Any] = lambda wsgi: wsgi) -> Callable[[], None]:
    """Return a round of nine requests, rendered and JSON, through Flask's test client.

    wrap: gives what is called instead of the WSGI application.
    """
    from flask import Flask, jsonify, render_template_string, request

    app = Flask(__name__)
    page = (
        "<h1>{{ title }}</h1><ul>{% for i in items %}<li class=\"{{ loop.cycle('a', 'b') }}\">"
        "{{ i.name|e }}: {{ '%0.2f'|format(i.price) }}</li>{% endfor %}</ul>"
    )
    items = [{"name": f"item <{i}>", "price": i * 1.25} for i in range(200)]

    @app.route("/page/<int:n>")
    def render(n: int) -> str:
        return render_template_string(page, title=f"Page {n}", items=items[n % 150 : n % 150 + 25])

    @app.route("/api/<int:n>", methods=["GET", "POST"])
    def api(n: int) -> Any:
        body = request.get_json(silent=True) or {}
        return jsonify(n=n, items=[dict(d, q=n) for d in items[:20]], got=len(body))

    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()

    def work() -> None:
        for n in range(3):
            client.get(f"/page/{n}")
            client.get(f"/api/{n}")
            client.post(f"/api/{n}", json={"a": n, "b": ["x"] * 20})

    return work


def numpy_arrays() -> Callable[[], None]:
    """Return a round that makes, reshapes and reduces many small and some large arrays."""
    import numpy

    base = numpy.random.default_rng(1).random((300, 300))

    def work() -> None:
        for _ in range(4):
            product = base @ base
            numpy.sort(product, axis=1).sum(axis=0)
        rows = [base[i % 300] * 2.0 + i for i in range(1000)]
        [float(row.mean()) for row in rows[:200]]

    return work


def four_threads() -> Callable[[], None]:
    """Return a round of object churn in each of four threads."""
    rounds = [object_churn() for _ in range(4)]

    def work() -> None:
        threads = [threading.Thread(target=each) for each in rounds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


WORKLOADS: dict[str, Callable[[], Callable[[], None]]] = {
    "json": json_documents,
    "churn": object_churn,
    "flask": flask_requests,
    "numpy": numpy_arrays,
    "threads": four_threads,
}
