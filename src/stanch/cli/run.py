"""`stanch run [options] -- COMMAND...`: starts a command with the agent in its Python processes.

Puts the settings into STANCH_* variables and the agent's bootstrap first on PYTHONPATH, then
becomes the command by exec: the same pid, signals and exit code. Everything is checked before.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import stanch.agent
from stanch.agent import rundir
from stanch.agent.control import check
from stanch.agent.settings import FLAG_SET, LISTEN_AUTO, SETTINGS, SettingError, from_texts
from stanch.cli.errors import CliError
from stanch.sampler import PRELOAD, preload_problem

BOOTSTRAP = Path(stanch.agent.__file__).parent / "bootstrap"
NOT_FOUND = 127
NOT_EXECUTABLE = 126
_PATH_SETTINGS = {"table", "token_file", "tls_cert", "tls_key"}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command; its options are the rows of the table of settings."""
    parser = subparsers.add_parser(
        "run",
        help="start a command with the agent inside",
        usage="stanch run [options] -- COMMAND [ARGUMENT...]",
        description="Start a command with the agent in each of its Python processes, its code "
        "unchanged: a script, python -m, gunicorn, uvicorn, celery, multiprocessing.",
        epilog="Each option can also be set by its variable STANCH_NAME; the option wins. "
        "Python's -S, -I and -E keep the agent out, as they ignore PYTHONPATH or sitecustomize.",
    )
    add_settings(parser)
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting."""
    for setting in SETTINGS:
        text = f"{setting.help} (default: {setting.default})".replace("%", "%%")
        if setting.is_flag:
            parser.add_argument(
                setting.option,
                dest=setting.keyword,
                action="store_const",
                const=FLAG_SET,
                help=text,
            )
        else:
            parser.add_argument(
                setting.option, dest=setting.keyword, metavar=setting.metavar, help=text
            )


def chosen_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the texts of the options by keyword, empty when absent."""
    return {s.keyword: getattr(arguments, s.keyword) or "" for s in SETTINGS}


def run(arguments: argparse.Namespace) -> NoReturn:
    """Become the command. Raises CliError with exit code 2, 126 or 127 when that cannot be."""
    command = list(arguments.command)
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        raise CliError("no command; expected: stanch run [options] -- COMMAND, such as app.py", 2)
    program = find_program(command[0], os.environ)
    environ = environment(chosen_settings(arguments), os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    undo_start_of_python(environ)
    try:
        os.execve(program, command, environ)
    except OSError as error:
        raise CliError(f"cannot run {program}: {error.strerror}", NOT_EXECUTABLE) from None


def undo_start_of_python(environ: dict[str, str]) -> None:
    """Take back what this interpreter changed at its start and exec would hand on.

    Those are ignored signals, and LC_CTYPE, which Python sets where there is no locale (PEP 538).
    """
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        environ.pop("LC_CTYPE", None)


def resolved_settings(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of the settings that are given, by keyword, good in any directory.

    options: texts by keyword, empty when absent; the variables in `environ` stand behind them.
    Raises CliError with exit code 2 for a setting that cannot be used.
    """
    given = {s.keyword: options.get(s.keyword) or environ.get(s.variable, "") for s in SETTINGS}
    try:
        settings = from_texts(
            given,
            lambda s: s.variable if given[s.keyword] and not options.get(s.keyword) else s.option,
            listen=LISTEN_AUTO,
        )
        check(settings)
    except SettingError as error:
        raise CliError(str(error), 2) from None
    resolved = {keyword: text for keyword, text in given.items() if text}
    for keyword in resolved.keys() & _PATH_SETTINGS:
        resolved[keyword] = str(Path(resolved[keyword]).absolute())
    if "listen" in resolved:
        resolved["listen"] = settings.listen
    if not settings.native:
        resolved.pop("native", None)
    return resolved


def environment(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the command; see `resolved_settings`, which raises."""
    resolved = resolved_settings(options, environ)
    changed = dict(environ)
    for setting in SETTINGS:
        if setting.keyword in resolved:
            changed[setting.variable] = resolved[setting.keyword]
    if "native" in resolved:
        changed["LD_PRELOAD"] = _preload(environ.get("LD_PRELOAD", ""))
    changed[rundir.FIRST_VARIABLE] = str(os.getpid())
    changed[rundir.RUN_VARIABLE] = str(rundir.base_directory(environ) / str(os.getpid()))
    inherited = environ.get("PYTHONPATH", "")
    path = [entry for entry in inherited.split(os.pathsep) if entry != str(BOOTSTRAP)]
    changed["PYTHONPATH"] = os.pathsep.join([str(BOOTSTRAP), *(path if inherited else [])])
    return changed


def _preload(inherited: str) -> str:
    """Put the preload library before what is preloaded already, which it passes calls on to.

    Raises CliError when there is none.
    """
    if problem := preload_problem():
        raise CliError(problem, 2)
    others = [path for path in inherited.replace(":", " ").split() if path != str(PRELOAD)]
    return ":".join([str(PRELOAD), *others])


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a command, as a shell would find it.

    Raises CliError with exit code 127 when there is none, 126 when it cannot be executed.
    """
    found = name if os.sep in name else shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None or not Path(found).exists():
        raise CliError(f"{name}: no such command; {_hint(name)}", NOT_FOUND)
    if Path(found).is_dir() or not os.access(found, os.X_OK):
        raise CliError(f"{name} cannot be executed; {_hint(name)}", NOT_EXECUTABLE)
    return found


def _hint(name: str) -> str:
    if name.endswith(".py"):
        return f"a script is run by: stanch run -- python {name}"
    return "give its path, or check the spelling"
