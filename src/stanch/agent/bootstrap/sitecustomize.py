"""Starts the agent in every Python process of `stanch run`, before the host's own code.

`stanch run` puts this directory first on PYTHONPATH, so Python's `site` imports this file at
start-up. It starts the agent, then lets the host's own sitecustomize run, if there is one further
down sys.path. Whatever goes wrong with the agent is one line on stderr.

The file may be read by any Python, so it sticks to what old ones know. Nothing of it stays behind:
neither its directory on sys.path nor a name in the host's sitecustomize.
"""

# ruff: noqa: UP031, RUF005 - f-strings and unpacking are syntax errors for the oldest Pythons

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs 5 ms


def _say(message):  # type: ignore[no-untyped-def] # annotations cost an import here
    if sys.stderr is not None:
        sys.stderr.write("stanch: " + message + "\n")
        sys.stderr.flush()


def _in_sub_interpreter():  # type: ignore[no-untyped-def]
    """Return whether this is one; `site` runs in each, and the main one has the agent already.

    Nothing else in Python says so without a private module, and an import of the agent would take
    a tenth of a second each time.
    """
    import _signal

    try:
        found = _signal.set_wakeup_fd(-1)
    except ValueError:  # "only works in main thread of the main interpreter"
        return True
    if found != -1:
        _signal.set_wakeup_fd(found)
    return False


def _start_agent():  # type: ignore[no-untyped-def]
    """Start the agent from the stanch of this interpreter, or else from the one that ran us."""
    found = "%s %d.%d" % ((sys.implementation.name,) + sys.version_info[:2])
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        _say("the agent stays off: this is %s; expected CPython 3.11 to 3.15" % found)
        return
    if "t" in getattr(sys, "abiflags", ""):
        _say(
            "the agent stays off: this is a free-threaded build of %s; expected the default" % found
        )
        return
    added = None
    try:
        from importlib.util import find_spec

        if find_spec("stanch") is None:
            home = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))  # noqa: PTH120
            from importlib.machinery import EXTENSION_SUFFIXES

            core = os.path.join(home, "stanch", "sampler", "_core")  # noqa: PTH118
            if not os.path.exists(core + EXTENSION_SUFFIXES[0]):  # noqa: PTH110
                _say(
                    "the agent stays off: %s has no stanch of its own, and the one in %s is not "
                    "built for %s; install stanch there" % (sys.executable, home, found)
                )
                return
            added = home
            sys.path.append(home)
        from stanch.agent.control import start_from_environment

        start_from_environment()
    finally:
        if added in sys.path:
            sys.path.remove(added)


def _run_hosts_own():  # type: ignore[no-untyped-def]
    """Import the next sitecustomize in our stead; without one, ours stays as an empty module."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]  # noqa: PTH100
try:
    if not _in_sub_interpreter():
        _start_agent()
except Exception as error:
    _say("the agent stays off: %r" % (error,))
_run_hosts_own()
