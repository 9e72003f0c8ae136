"""`stanch flame`: the flame graph as one HTML page that needs no other file.

The page is page.html with graph.html, its styles, its script and the data put in. Its content
security policy allows that one style and that one script by their hashes and nothing else, so a
name in a hostile profile stays text.
"""

import base64
import hashlib
import html
import re
import time
from importlib import resources

from stanch.flame.tree import FlameOptions, FlameSource, flame_json
from stanch.profile import Profile, format_value

_MAX_FACTS = 8
# What Stanch writes into its profiles for machines.
_QUIET_COMMENTS = ("#", "start_unix_ns=", "interval_bytes=", "pid=")


def flame_page(source: FlameSource, options: FlameOptions) -> str:
    """Make the page. Raises ProfileError when base and profile do not fit or have no such type."""
    title = f"{source.name}, compared with {source.base_name}" if source.base else source.name
    style, script = _asset("page.css") + _asset("static/graph.css"), _asset("static/graph.js")
    parts = {
        "policy": _policy(style, script),
        "title": html.escape(title),
        "facts": html.escape(" · ".join(_facts(source.profile))),
        "style": style,
        "script": script,
        "graph": flame_graph(flame_json(source, options)),
    }
    return _filled(_asset("page.html"), parts)


def flame_graph(data: str, search: str = "") -> str:
    """The part of a page that `graph.js` works in. data: of `flame_json`. search: what is marked
    at first, a regular expression."""
    return _filled(_asset("graph.html"), {"data": data, "search": html.escape(search)})


def _filled(text: str, parts: dict[str, str]) -> str:
    """Fill in all at once, so that nothing in a part is taken for a placeholder."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def _facts(profile: Profile) -> list[str]:
    """Say in a few words what the profile tells about itself."""
    comments = [each for each in profile.comments if not each.startswith(_QUIET_COMMENTS)]
    facts = [comment.replace("=", " ", 1) for comment in comments[:_MAX_FACTS]]
    if profile.time_nanos > 0:
        facts.append(
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(profile.time_nanos // 10**9))
        )
    if profile.duration_nanos > 0:
        facts.append(f"over {format_value(profile.duration_nanos, 'nanoseconds')}")
    return facts


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return resources.files("stanch.flame").joinpath(name).read_text("utf-8")
