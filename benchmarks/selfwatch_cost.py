"""What it costs a server to be one of its own targets: two that do nothing else, side by side.

python -m benchmarks.selfwatch_cost [SECONDS]     default 60, after 25 seconds of warming up
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP_S = 25.0


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def start(directory: Path, watches: bool) -> "subprocess.Popen[bytes]":
    """A server with a store of its own and no other target."""
    directory.mkdir()
    config = directory / "server.toml"
    config.write_text(f"watch_self = {str(watches).lower()}\n")
    command = [sys.executable, "-m", "stanch.cli.main", "server", "--data", str(directory)]
    command += ["--config", str(config), "--listen", "127.0.0.1:0"]
    environ = {**os.environ, "STANCH_DIR": str(directory / "run")}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)


def main() -> None:
    """Print a line for each."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as name:
        servers = {watches: start(Path(name) / str(watches), watches) for watches in (False, True)}
        try:
            time.sleep(WARM_UP_S)
            before = {watches: cpu_s(one.pid) for watches, one in servers.items()}
            time.sleep(seconds)
            for watches, one in servers.items():
                spent_s = cpu_s(one.pid) - before[watches]
                print(
                    f"watch_self = {str(watches).lower():5}  {100 * spent_s / seconds:.1f} % of a"
                    f" core, {rss_bytes(one.pid) / 1e6:.0f} MB"
                )
        finally:
            for one in servers.values():
                one.terminate()
            for one in servers.values():
                one.wait(60)


if __name__ == "__main__":
    main()
