"""Where the data directory is when nobody says."""

import os
from collections.abc import Mapping
from pathlib import Path


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return `$STANCH_DATA`, or `stanch` in the user's directory for state (XDG)."""
    variables = os.environ if environment is None else environment
    if chosen := variables.get("STANCH_DATA"):
        return Path(chosen)
    state = variables.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "stanch"
