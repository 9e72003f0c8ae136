"""The file of recycling: what it may say, and what is refused in which words."""

from pathlib import Path

import pytest

from stanch.collect.configuration import ConfigurationError
from stanch.recycle import RecyclePolicy
from stanch.recycle.backends.command import CommandBackend
from stanch.recycle.configuration import SETTINGS, read_policies

ROOT = Path(__file__).resolve().parents[2]
WHOLE = """
[[service]]
service = "shop*"
backend = "command"
lead = "3m"
at = 0.7
most_at_once = 2
quorum = 0.75
spacing = "0s"
per_hour = 30
drain = "20s"
settle = "2s"
end = "90s"
ready = "4m"
end_command = ["docker", "restart", "{instance}"]
drain_command = ["lb", "out", "{instance}"]
restore_command = ["lb", "in", "{instance}"]

[[service]]
service = "unit"
backend = "systemd"
unit = "unit@{instance}.service"
"""


def worker() -> CommandBackend:
    """What stands for the back end of workers here."""
    return CommandBackend(("worker",))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recycle.toml"
    path.write_text(text)
    return path


def test_all_keys_are_read(tmp_path: Path) -> None:
    """Policies and back ends come out as written."""
    (shop, docker), (unit, systemd) = read_policies(written(tmp_path, WHOLE), {"worker": worker})
    assert shop == RecyclePolicy(
        "shop*", 180.0, 0.7, 2, 0.75, 0.0, 30, 20.0, 2.0, 90.0, 240.0, dry_run=False
    )
    assert docker == CommandBackend(
        ("docker", "restart", "{instance}"), ("lb", "out", "{instance}"), ("lb", "in", "{instance}")
    )
    assert unit == RecyclePolicy("unit")
    assert isinstance(systemd, CommandBackend)
    assert systemd.end_command[-1] == "unit@{instance}.service"


def test_a_dry_run_is_one_for_all(tmp_path: Path) -> None:
    """The command line decides it."""
    text = "[[service]]\nservice='*'\nbackend='worker'"
    ((policy, backend),) = read_policies(written(tmp_path, text), {"worker": worker}, dry_run=True)
    assert policy.dry_run
    assert backend == worker()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected [[service]] tables"),
        ("nonsense", "is no TOML"),
        ("other = 1", "expected [[service]] tables"),
        ("[[service]]\nbackend = 'worker'", "service is None"),
        ("[[service]]\nservice = 'a'", "backend is None; expected one of worker"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nlaed = '1m'", "'laed' is not known"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nlead = 'soon'", "lead: 'soon'"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nat = 1.5", "at is 1.5; expected"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nper_hour = 0", "per_hour is 0"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nper_hour = 2.5", "a whole number"),
        ("[[service]]\nservice = 'a'\nbackend = 'worker'\nunit = 'u'", "unit is nothing that"),
        ("[[service]]\nservice = 'a'\nbackend = 'command'", "needs an end_command"),
        ("[[service]]\nservice = 'a'\nbackend = 'command'\nend_command = 'x'", "list of words"),
        ("[[service]]\nservice = 'a'\nbackend = 'systemd'", "unit is None"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    """It names the file, the key and what is expected."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as error:
        read_policies(path, {"worker": worker})
    assert str(error.value).startswith(str(path))
    assert says in str(error.value)


def test_a_file_beyond_the_bound_is_refused_whole(tmp_path: Path) -> None:
    """Half a file is never taken for all of it."""
    table = "[[service]]\nservice = 'a'\nbackend = 'worker'\n"
    path = written(tmp_path, table + "# filler\n" * (1 << 17))
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        read_policies(path, {"worker": worker})


def test_every_key_is_documented() -> None:
    """docs/recycling.md has a row for each key, with its default."""
    lines = (ROOT / "docs/recycling.md").read_text().splitlines()
    for setting in SETTINGS:
        row = f"| `{setting.name}` | {setting.default} | {setting.help} |"
        assert row in lines, setting.name
