"""The one way the agent speaks inside its host: a line on stderr."""

import sys


def warn(message: str) -> None:
    """Write one line `stanch: MESSAGE` to stderr, if the host has one. Never raises."""
    try:
        line = message.replace("\n", " ")
        sys.stderr.write(f"stanch: {line}\n")
        sys.stderr.flush()
    except Exception:  # a host may have closed or replaced its stderr
        return
