"""The HTTP face of the shop."""

from typing import Any

from flask import Blueprint, Response, abort, jsonify, request

from . import checkout, sessions
from .basket import BasketError

pages = Blueprint("shop", __name__)


@pages.get("/health")
def health() -> Response:
    """Answer the load balancer's question."""
    return jsonify(status="ok")


@pages.post("/orders")
def create_order() -> tuple[Response, int]:
    """Check out the basket in the body: {"customer": NAME, "lines": [[SKU, QUANTITY], ...]}."""
    body: dict[str, Any] = request.get_json()
    try:
        receipt = checkout.check_out(str(body["customer"]), body["lines"])
    except (KeyError, TypeError, BasketError) as problem:
        return jsonify(error=f"not an order: {problem}"), 400
    return jsonify(order=receipt.order_id, total_cents=receipt.total_cents), 201


@pages.get("/orders/<order_id>")
def show_order(order_id: str) -> Response:
    """Show the order page again, while its session lasts."""
    session = sessions.recall(order_id)
    if session is None:
        abort(404)
    rows = "".join(str(row["html"]) for row in session.rows)
    return Response(f"<table>{rows}</table>", mimetype="text/html")
