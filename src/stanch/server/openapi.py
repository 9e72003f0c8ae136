"""The HTTP interface for programs, as an OpenAPI 3.1 document: what is sent, and what is answered.

The pages for people are not part of it; they change. https://spec.openapis.org/oas/v3.1.0
"""

from typing import Any

from stanch.collect.pyroscope import FOLDED
from stanch.server.ingest import MAX_BODY_BYTES
from stanch.version import __version__

PATH = "/openapi.json"
_Json = dict[str, Any]

_PROFILE = {
    "application/octet-stream": {
        "schema": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "maxLength": MAX_BODY_BYTES,
        }
    }
}
_JSON_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_LABEL = {
    "type": "object",
    "required": ["name", "value"],
    "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
}
_SAMPLE = {
    "type": "object",
    "required": ["rawProfile"],
    "properties": {
        "ID": {"type": "string"},
        "rawProfile": {"type": "string", "contentEncoding": "base64", "description": "pprof"},
    },
}
_PUSH_REQUEST = {
    "type": "object",
    "required": ["series"],
    "properties": {
        "series": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["labels", "samples"],
                "properties": {
                    "labels": {"type": "array", "items": _LABEL},
                    "samples": {"type": "array", "items": _SAMPLE},
                },
            },
        }
    },
}
"""push.v1.PushRequest as JSON."""
_SENTENCE = {"text/plain": {"schema": {"type": "string"}}}


def document() -> _Json:
    """The document as JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stanch server",
            "version": __version__,
            "description": "Profiles come in by a push and go out by a download. Beyond loopback "
            "each request needs a token, and whoever asks too often gets 429 with Retry-After.",
        },
        "paths": {
            "/api/v1/push": {"post": _push()},
            "/ingest": {"post": _ingest()},
            "/push.v1.PusherService/Push": {"post": _push_v1()},
            "/download/{service}": {"get": _download()},
            "/api/v1/deaths": {"get": _deaths()},
            "/api/v1/deaths/{death}": {"get": _death("One death.", "application/json")},
            "/api/v1/deaths/{death}/profile": {
                "get": _death("What it held at its end, pprof, gzip.", "application/octet-stream")
            },
            "/metrics": {"get": _simple("The server's own metrics, for Prometheus.", "text/plain")},
            "/healthz": {"get": _simple("Whether the process answers.", "application/json", [])},
            "/readyz": {"get": _ready()},
            PATH: {"get": _simple("This document.", "application/json")},
        },
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _push() -> _Json:
    headers = (
        ("X-Stanch-Service", "whose profile it is; else its comments say so"),
        ("X-Stanch-Instance", "which process's"),
        ("X-Stanch-Release", "the version that runs"),
        ("X-Stanch-Pid", "the process id, a number"),
        ("X-Stanch-Memory", "rss=, limit=, working_set= in bytes and in_flight=, with spaces"),
    )
    return {
        "operationId": "push",
        "summary": "Keep a pprof profile, gzip or plain. It is on the disk when this is answered.",
        "security": [{"token": []}],
        "parameters": [_header(name, text) for name, text in headers],
        "requestBody": {"required": True, "content": _PROFILE},
        "responses": {
            "200": {
                "description": "It is kept; `taken` is false when the same one was there already.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["service", "instance", "kind", "taken"],
                            "properties": {
                                "service": {"type": "string"},
                                "instance": {"type": "string"},
                                "kind": {"type": "string"},
                                "taken": {"type": "boolean"},
                            },
                        }
                    }
                },
            },
            **_refusals("400", "413", "503"),
        },
    }


def _ingest() -> _Json:
    queries = (
        ("name", "the application with its labels, such as shop{instance=a}"),
        ("from", "Unix time of its begin, in seconds"),
        ("until", "of its end"),
        ("units", "of the values"),
    )
    form = {
        "name": "format",
        "in": "query",
        "description": "of the body; pprof when empty or left out",
        "schema": {"type": "string", "enum": ["", "pprof", *FOLDED]},
    }
    return {
        "operationId": "pyroscope_ingest",
        "summary": "Keep a profile as Pyroscope's SDKs send it.",
        "security": [{"token": []}],
        "parameters": [form, *(_query(name, text) for name, text in queries)],
        "requestBody": {"required": True, "content": _PROFILE},
        "responses": {"200": {"description": "It is kept."}, **_refusals("400", "413", "503")},
    }


def _push_v1() -> _Json:
    message = {"schema": {"type": "string", "contentMediaType": "application/proto"}}
    refusals = _refusals("400", "413", "503")
    for status in ("400", "413", "503"):
        refusals[status]["content"] = _JSON_OBJECT  # Connect's code and message
    refusals["429"]["content"] = {**_SENTENCE, **_JSON_OBJECT}  # at the gate a sentence
    return {
        "operationId": "pyroscope_push",
        "summary": "Keep profiles as Grafana Alloy sends them: Connect's unary protocol.",
        "security": [{"token": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/proto": message,
                "application/json": {"schema": _PUSH_REQUEST},
            },
        },
        "responses": {"200": {"description": "All are kept."}, **refusals},
    }


def _download() -> _Json:
    queries = (
        ("at", "a moment, YYYY-MM-DDTHH:MM:SS in UTC; the newest when left out"),
        ("instance", "of this process; of all when left out"),
        ("release", "of this version"),
        ("label", "of the samples with this label, KEY=VALUE"),
        ("kind", "heap, goroutine, thread or task"),
        ("format", "speedscope for a file that speedscope.app reads; else pprof"),
    )
    service = {
        "name": "service",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    return {
        "operationId": "download",
        "summary": "The profile that a service had at a moment, its instances added up.",
        "security": [{"token": []}],
        "parameters": [service, *(_query(name, text) for name, text in queries)],
        "responses": {
            "200": {
                "description": "pprof, gzip; or JSON for speedscope.",
                "content": {**_PROFILE, "application/json": {"schema": {"type": "object"}}},
            },
            **_refusals("400", "404", "503"),
        },
    }


def _deaths() -> _Json:
    most = {
        "name": "most",
        "in": "query",
        "description": "so many, the newest first",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    }
    one = {"type": "object", "required": ["death", "service", "instance", "cause", "died_unix"]}
    return {
        "operationId": "deaths",
        "summary": "How processes ended: why, with what in memory, and what had been foretold.",
        "security": [{"token": []}],
        "parameters": [_query("service", "of this service; of all when left out"), most],
        "responses": {
            "200": {
                "description": "The newest deaths.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["deaths"],
                            "properties": {"deaths": {"type": "array", "items": one}},
                        }
                    }
                },
            },
            **_refusals("400", "503"),
        },
    }


def _death(summary: str, media: str) -> _Json:
    name = {
        "name": "death",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    content = _PROFILE if media == "application/octet-stream" else _JSON_OBJECT
    return {
        "summary": summary,
        "security": [{"token": []}],
        "parameters": [name],
        "responses": {
            "200": {"description": "So it ended.", "content": content},
            **_refusals("404", "503"),
        },
    }


def _ready() -> _Json:
    operation = _simple("Whether the store answers.", "application/json", [])
    operation["responses"]["503"] = {"description": "It does not.", "content": _JSON_OBJECT}
    return operation


def _simple(summary: str, media: str, security: list[_Json] | None = None) -> _Json:
    schema = {"type": "object"} if media == "application/json" else {"type": "string"}
    refusals = _refusals("503") if security is None else {}
    return {
        "summary": summary,
        "security": [{"token": []}] if security is None else security,
        "responses": {
            "200": {"description": "So it is.", "content": {media: {"schema": schema}}},
            **refusals,
        },
    }


def _refusals(*statuses: str) -> _Json:
    """What each operation that needs a token may answer, and these."""
    words = {
        "400": "What was sent is not that, or names nothing; a sentence says what is wrong.",
        "401": "A token is needed, or this one is not known.",
        "403": "The token is for something else, or this comes from another site's page.",
        "404": "There is no such profile.",
        "413": f"The body is larger than {MAX_BODY_BYTES:,} bytes.",
        "421": "On loopback: asked by a name that is not this machine's.",
        "429": "Asked too often; Retry-After says when to come back.",
        "503": "It cannot be kept or read now; Retry-After says when to try again.",
    }
    return {
        status: {"description": words[status], "content": _SENTENCE}
        for status in sorted({*statuses, "401", "403", "421", "429"})
    }


def _query(name: str, text: str) -> _Json:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}


def _header(name: str, text: str) -> _Json:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
