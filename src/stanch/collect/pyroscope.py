"""What Pyroscope's clients send: `/ingest` of its SDKs and `push.v1` of Grafana Alloy.

Both carry profiles with labels; the service is the label `service_name` or the application's
name. Profiles are pprof, or collapsed stacks ("a;b;c 12"), which are turned into pprof.
Sources: https://grafana.com/docs/pyroscope/latest/reference-server-api/ and push/v1/push.proto in
https://github.com/grafana/pyroscope.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from stanch.collect.received import Push
from stanch.profile import (
    Function,
    Line,
    Location,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    encode,
)
from stanch.profile.wire import expect_bytes, read_fields

FOLDED = ("folded", "groups", "lines", "collapsed")
"""Names of formats of collapsed stacks; `lines` has one stack a line, uncounted."""
_MOST_SERIES = 1_000
_MOST_LINES = 200_000
_INSTANCE = ("instance", "pod", "hostname", "host", "service_instance_id")
_RELEASE = ("release", "version", "service_version", "service_git_ref")
_LABEL = re.compile(r"\s*([A-Za-z_][\w.]*)\s*=\s*\"?([^\",}]*)\"?\s*,?")
_UNITS = {
    "bytes": ValueType("inuse_space", "bytes"),
    "objects": ValueType("inuse_objects", "count"),
    "goroutines": ValueType("goroutine", "count"),
    "samples": ValueType("samples", "count"),
}


@dataclass(frozen=True, slots=True)
class IngestQuery:
    """The query of an `/ingest` request; times in seconds since the Unix epoch."""

    name: str
    format: str = ""
    units: str = ""
    spy: str = ""
    until_s: float | None = None

    @staticmethod
    def of(query: Mapping[str, str]) -> "IngestQuery":
        """From the parameters of the request."""
        return IngestQuery(
            query.get("name", ""),
            query.get("format", ""),
            query.get("units", ""),
            query.get("spyName", ""),
            _seconds(query.get("until", "")),
        )


def read_ingest(query: IngestQuery, content_type: str, body: bytes) -> Push:
    """The push of an `/ingest` request. Raises ProfileError."""
    labels = application_labels(query.name)
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        data = _form_file(content_type, body)
    elif query.format in ("", "pprof"):
        data = body
    elif query.format in FOLDED:
        data = encode(_folded(body, query.units, counted=query.format != "lines"))
    else:
        raise ProfileError(
            f"profiles of format {query.format[:40]!r} are not read; expected pprof or folded"
        )
    language = {"gospy": "go", "pyspy": "python", "pyroscope-rs": ""}.get(query.spy, "")
    return _push(labels, data, query.until_s, language)


def application_labels(name: str) -> dict[str, str]:
    """The labels of an application's name such as `shop{region="eu",pod=a}`."""
    application, brace, rest = name.partition("{")
    labels = dict(_LABEL.findall(rest)) if brace else {}
    labels.setdefault("service_name", application.strip())
    return labels


def read_push(content_type: str, body: bytes) -> list[Push]:
    """The pushes of a `push.v1.PusherService/Push` request, JSON or protobuf.

    Raises ProfileError.
    """
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return _read_json(body)
    pushes: list[Push] = []
    for number, series in read_fields(body):
        if number != 1:
            continue
        labels: dict[str, str] = {}
        profiles: list[bytes] = []
        for field, value in read_fields(expect_bytes(series)):
            if field == 1:
                pair = dict(read_fields(expect_bytes(value)))
                labels[_text(pair.get(1, b""))] = _text(pair.get(2, b""))
            elif field == 2:
                sample = dict(read_fields(expect_bytes(value)))
                profiles.append(expect_bytes(sample.get(1, b"")))
        _add(pushes, labels, profiles)
    return pushes


def _read_json(body: bytes) -> list[Push]:
    pushes: list[Push] = []
    try:
        request: Any = json.loads(body)
        for series in request["series"]:
            labels = {str(pair["name"]): str(pair["value"]) for pair in series["labels"]}
            profiles = [
                base64.b64decode(sample["rawProfile"], validate=True)
                for sample in series["samples"]
            ]
            _add(pushes, labels, profiles)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ProfileError(
            "the request is no push.v1.PushRequest; expected series with labels and samples"
        ) from error
    return pushes


def _add(pushes: list[Push], labels: Mapping[str, str], profiles: list[bytes]) -> None:
    if len(pushes) + len(profiles) > _MOST_SERIES:
        raise ProfileError(f"more than {_MOST_SERIES:,} profiles in one request; send fewer")
    pushes += [_push(labels, data, None, "") for data in profiles]


def _push(labels: Mapping[str, str], data: bytes, unix_s: float | None, language: str) -> Push:
    def first(names: tuple[str, ...]) -> str:
        return next((labels[name] for name in names if labels.get(name)), "")

    return Push(
        data=data,
        service=labels.get("service_name", ""),
        instance=first(_INSTANCE),
        release=first(_RELEASE),
        language=language,
        unix_s=unix_s,
    )


def _form_file(content_type: str, body: bytes) -> bytes:
    """The file `profile` of a form; other files tell of the profile and are not needed."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    form: Message = BytesParser(policy=HTTP).parsebytes(head + body)
    for part in form.walk():
        if part.get_param("name", header="content-disposition") == "profile":
            data = part.get_payload(decode=True)
            if isinstance(data, bytes):
                return data
    raise ProfileError("the form has no file named 'profile'; expected one with the pprof profile")


def _folded(body: bytes, units: str, *, counted: bool) -> Profile:
    """Collapsed stacks, root first, with a count at the end of each line, or one for each line."""
    kind = _UNITS.get(units, _UNITS["samples"])
    sums: dict[str, int] = {}
    for line in body.decode("utf-8", "replace").splitlines():
        stack, _, count = line.strip().rpartition(" ") if counted else (line.strip(), "", "1")
        if not line.strip():
            continue
        if not stack or not count.isascii() or not count.isdigit():
            raise ProfileError(
                f"{line[:60]!r} is no collapsed stack; expected frames with ';' between and a count"
            )
        sums[stack] = sums.get(stack, 0) + int(count[:18])
        if len(sums) > _MOST_LINES:
            raise ProfileError(f"more than {_MOST_LINES:,} stacks; send fewer at a time")
    locations: dict[str, Location] = {}

    def location(frame: str) -> Location:
        found = locations.get(frame)
        if found is None:
            found = locations[frame] = Location(0, None, (Line(Function(frame)),))
        return found

    samples = tuple(
        Sample(tuple(map(location, reversed(stack.split(";")))), (count,))
        for stack, count in sums.items()
    )
    return Profile((kind,), samples, kind.type)


def _seconds(text: str) -> float | None:
    """A Unix time in seconds; SDKs differ, so what can only be ms, us or ns is taken for that."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    seconds = float(text)
    while seconds > 1e11:
        seconds /= 1000
    return seconds


def _text(value: "int | bytes | None") -> str:
    return expect_bytes(value).decode("utf-8", "replace")
