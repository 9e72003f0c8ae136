"""pricing as a WSGI application: `gunicorn 'pricing.app:create_app()'`."""

from flask import Flask, Response, jsonify, request

from .quotes import quote

MAX_TIERS = 20_000


def create_app() -> Flask:
    """Return the application."""
    app = Flask("pricing")

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.get("/quotes")
    def show_quote() -> tuple[Response, int]:
        quantity = request.args.get("quantity", 1, type=int)
        tier_count = min(request.args.get("tiers", 100, type=int), MAX_TIERS)
        try:
            answer = quote(19.90, quantity, tier_count)
        except ValueError as problem:
            return jsonify(error=str(problem)), 400
        return jsonify(total=answer.total, on_credit=answer.on_credit), 200

    return app
