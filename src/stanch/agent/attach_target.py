"""What `stanch attach` has a process run: starts the agent in it and answers how that went.

sys.remote_exec executes the text of this file, with a call of `begin` below it, in a namespace of
its own between two bytecodes of the host's main thread. That may be anywhere, also inside a lock or
an import, so the main thread only starts a thread; the thread imports and starts the agent.

FOLDER, of `stanch attach` and private to this process's user, holds

    claim           whoever removes it decides: this process begins, or `stanch attach` has given up
    request.json    {"settings": {keyword: text}, "home": where the other stanch is}
    answer.json     {"listen": address or null} or {"error": sentence}, written here in the end
    attach.py       this text
"""

import json
import os
import sys
import threading
from typing import Any

FORK_WAITS_S = 1.0


def begin(folder: str) -> None:
    """Start the agent in a thread, unless `stanch attach` has given up. Never raises."""
    try:
        os.unlink(os.path.join(folder, "claim"))  # noqa: PTH108, PTH118 - no import of pathlib
    except OSError:
        forget(folder)
        return
    thread = threading.Thread(target=start, args=(folder,), name="stanch-attach", daemon=True)

    def wait() -> None:
        # A fork in the middle would leave the child half an agent and its locks held.
        if thread is not threading.current_thread():
            thread.join(FORK_WAITS_S)

    os.register_at_fork(before=wait)
    thread.start()


def forget(folder: str) -> None:
    """Remove what `stanch attach` left for us when it gave up."""
    try:
        for name in os.listdir(folder):  # noqa: PTH208
            os.unlink(os.path.join(folder, name))  # noqa: PTH108, PTH118
        os.rmdir(folder)  # noqa: PTH106
    except OSError:
        return


def start(folder: str) -> None:
    """Do what the request asks and write the answer. Never raises."""
    answer: dict[str, Any]
    try:
        with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            request = json.load(file)
        answer = {"listen": start_agent(request["settings"], request["home"])}
    except Exception as error:
        known = type(error).__name__ in ("SettingError", "SamplerError", "AttachError")
        answer = {"error": str(error) if known else repr(error)}
    try:
        path = os.path.join(folder, "answer.json")  # noqa: PTH118
        with open(path + ".part", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(answer, file)
        os.rename(path + ".part", path)  # noqa: PTH104
    except OSError:
        return  # nobody waits any more


class AttachError(RuntimeError):
    """The agent cannot be had in this process; the message says why and what to do."""


def start_agent(settings: dict[str, str], home: str) -> str | None:
    """Start the agent of this interpreter's stanch, or else of the one in `home`."""
    from importlib.machinery import EXTENSION_SUFFIXES
    from importlib.util import find_spec

    added = None
    if find_spec("stanch") is None:
        core = os.path.join(home, "stanch", "sampler", "_core" + EXTENSION_SUFFIXES[0])  # noqa: PTH118
        if not os.path.exists(core):  # noqa: PTH110
            raise AttachError(
                f"{sys.executable} has no stanch, and the one in {home} cannot be used there; "
                "install stanch with that interpreter's own pip"
            )
        added = home
        sys.path.append(home)
    try:
        from stanch.agent.control import start_attached
    except ImportError as error:
        raise AttachError(f"the stanch of {sys.executable} cannot be imported: {error}") from None
    finally:
        if added in sys.path:
            sys.path.remove(added)
    return start_attached(settings)
