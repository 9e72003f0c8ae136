"""The rules for Prometheus and the dashboard for Grafana: valid, and about series that exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/stanch.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/stanch.json"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool (package prometheus)")
# Prints what the agent of a served process with a budget exports.
EXPORT = """
import time
import stanch
from stanch.agent import control
stanch.start(listen="auto", budget=2)
agent = control._agent
deadline = time.monotonic() + 60
while agent._budget.state.measured is None and time.monotonic() < deadline:
    sum(len(str(number)) for number in range(10_000))
import http.client, socket
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(agent.listens_at.removeprefix("unix:"))
connection.request("GET", "/metrics")
print(connection.getresponse().read().decode())
"""


def promtool(*arguments: str | Path) -> str:
    """Run promtool; its output is the message when it fails."""
    assert PROMTOOL is not None
    command = [PROMTOOL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text()))


def expressions() -> list[str]:
    """The queries of the dashboard, its variables filled in."""
    return [
        re.sub(r'"\$\w+"', '".*"', target["expr"])
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    ]


@needs_promtool
def test_the_rules_are_valid() -> None:
    """promtool takes them."""
    assert "7 rules found" in promtool("check", "rules", RULES)


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """promtool plays leaks, caches and restarts through them."""
    cases = (ROOT / "tests/deploy/stanch.rules.test.yml").read_text()
    (tmp_path / "cases.yml").write_text(cases.replace("RULES", str(RULES)))
    promtool("test", "rules", tmp_path / "cases.yml")


@needs_promtool
def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    """Each of them, as a rule, is taken by promtool."""
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    groups = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(json.dumps(groups))  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_is_whole() -> None:
    """Panels have different numbers and do not overlap; each query has a data source."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_rules_and_dashboard_speak_of_series_that_the_agent_exports(tmp_path: Path) -> None:
    """Each metric that is named is in what a process under the agent exports."""
    environ = os.environ | {"STANCH_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", EXPORT], env=environ, capture_output=True, text=True, timeout=120
    )
    exported = set(re.findall(r"^# TYPE (\w+)", done.stdout, re.MULTILINE))
    assert "stanch_info" in exported, done.stderr
    # These two need a container with a limit.
    exported |= {"stanch_memory_limit_bytes", "stanch_memory_working_set_bytes"}
    text = RULES.read_text() + "\n".join(expressions())
    named = set(re.findall(r"\b((?:stanch|process)_\w+)", text))
    known = {re.sub(r"_(sum|count|bucket)$", "", name) for name in named}
    assert len(known) > 12
    assert known <= exported, known - exported
