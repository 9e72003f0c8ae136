"""Stanch finds memory leaks in live Python and Go services before the OOM killer does.

    import stanch
    stanch.start(listen="127.0.0.1:6060", service="shop")

`stanch run -- COMMAND` does the same for a program whose code stays as it is. Importing this
package costs next to nothing: the agent is loaded by the first call.
"""

import os
from typing import TYPE_CHECKING

from stanch.version import __version__

if TYPE_CHECKING:
    from stanch.sampler import Stats, label

__all__ = ["__version__", "heap_profile", "label", "start", "stats", "stop"]


def __getattr__(name: str) -> object:
    """Load `stanch.label` when it is first asked for."""
    if name == "label":
        from stanch.sampler import label

        return label
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def start(
    *,
    interval: int | str | None = None,
    budget: float | str | None = None,
    table: str | os.PathLike[str] | None = None,
    listen: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    push: str | None = None,
    push_every: float | str | None = None,
    service: str = "",
    instance: str = "",
    release: str = "",
    requests: str | None = None,
    labels: str | None = None,
    cmdline: str | None = None,
    native: bool | None = None,
    recycle: bool | None = None,
) -> None:
    """Start the agent in this process; does nothing when it runs already.

    The keywords are the settings of docs/settings.md; one that is not given is read from its
    STANCH_* variable. Nothing listens unless `listen` asks for it.
    Raises a ValueError for a wrong setting, and stanch.sampler.SamplerError, a RuntimeError, when
    this interpreter cannot be sampled. A port or a file that cannot be had is one line on stderr.
    """
    from stanch.agent import control

    control.start(
        {
            "interval": interval,
            "budget": budget,
            "table": table,
            "listen": listen,
            "token_file": token_file,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "push": push,
            "push_every": push_every,
            "service": service,
            "instance": instance,
            "release": release,
            "requests": requests,
            "labels": labels,
            "cmdline": cmdline,
            "native": native,
            "recycle": recycle,
        }
    )


def stop() -> None:
    """Stop the agent, and remove its table and socket. Does nothing when it does not run."""
    from stanch.agent import control

    control.stop()


def heap_profile() -> bytes:
    """Return the heap profile of this process as pprof (gzip); see stanch.sampler.heap_profile.

    Raises stanch.sampler.SamplerError when the agent does not run.
    """
    from stanch import sampler

    return sampler.heap_profile()


def stats() -> "Stats":
    """Return the state of the sampler, zeros when it does not run."""
    from stanch import sampler

    return sampler.stats()
