"""The catalog as a WSGI application: `gunicorn 'catalog.app:create_app()'`."""

from flask import Flask, Response, jsonify

from . import settings
from .index import SearchIndex
from .pages import PageCache


def create_app() -> Flask:
    """Return the application, with its index loading behind it."""
    app = Flask("catalog")
    cache = PageCache(settings.CACHE_PAGES)
    index = SearchIndex()
    index.load_in_background()

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.get("/products/<int:product>")
    def show_product(product: int) -> Response:
        page = cache.get(product)
        return Response(page.rows[0], mimetype="text/html")

    @app.get("/search/<word>")
    def search(word: str) -> Response:
        return jsonify(products=index.search(word))

    return app
