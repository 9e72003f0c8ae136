"""The shop as a WSGI application: `gunicorn 'shop.app:create_app()'`."""

from flask import Flask

from .handlers import pages


def create_app() -> Flask:
    """Return the application."""
    app = Flask("shop")
    app.register_blueprint(pages)
    return app
