"""Fetches what the tests start ClickHouse nodes from: a libchdb.so out of an npm package.

    python3 tools/clickhouse.py     prints its path in build/clickhouse; made when it is not there

Standard library only, and npm. Exit code 1 with one sentence when something is missing.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"
INTEGRITY = (
    "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWm"
    "ukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
)
LIBRARY = Path(__file__).resolve().parent.parent / "build/clickhouse/libchdb.so"


def main() -> int:
    """Make the file, print its path."""
    if not LIBRARY.exists():
        if shutil.which("npm") is None:
            print("stanch: no npm, by which ClickHouse comes for the tests", file=sys.stderr)
            return 1
        print(f"stanch: fetching {PACKAGE} (180 MB)", file=sys.stderr)
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LIBRARY.parent) as name:
            command = ["npm", "pack", "--silent", PACKAGE]
            subprocess.run(command, cwd=name, check=True, stdout=sys.stderr)
            (archive,) = Path(name).glob("*.tgz")
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha512").digest()
            if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
                print(f"stanch: {PACKAGE} is not what it was; not used", file=sys.stderr)
                return 1
            with tarfile.open(archive) as opened:
                opened.extract("package/libchdb.so", name, filter="data")
            (Path(name) / "package/libchdb.so").rename(LIBRARY)
    print(LIBRARY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
