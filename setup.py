"""Builds the C core; everything else about the package stands in pyproject.toml."""

import os
import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("src/stanch/sampler/core")
PRELOAD = Path("src/stanch/sampler/preload")
DECODE = Path("src/stanch/store/decode")

# STANCH_WERROR=1 (set by `make check`) turns every C warning into an error;
# STANCH_SANITIZE=address,undefined builds for a sanitizer run.
flags = [
    "-std=c11",
    "-O3",
    "-fvisibility=hidden",
    "-fno-plt",
    "-fno-semantic-interposition",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
]
link: list[str] = []
if os.environ.get("STANCH_WERROR"):
    flags.append("-Werror")
if sanitizers := os.environ.get("STANCH_SANITIZE"):
    flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    flags += ["-fno-omit-frame-pointer", "-g"]
    link.append(f"-fsanitize={sanitizers}")

# The retention search knows the objects of 3.11 to 3.13; a later CPython gets the rest.
sources = sorted(str(path) for path in CORE.glob("*.c"))
if sys.version_info >= (3, 14):
    sources = [path for path in sources if not Path(path).name.startswith("retain")]

extensions = []
if platform.python_implementation() == "CPython" and platform.system() == "Linux":
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit(
            "stanch: free-threaded CPython builds are not supported yet; "
            "use the default build of the same version"
        )
    extensions.append(
        Extension(
            "stanch.sampler._core",
            sources=sources,
            depends=[*sorted(str(path) for path in CORE.glob("*.h")), str(PRELOAD / "preload.h")],
            extra_compile_args=flags,
            extra_link_args=link,
            libraries=["m", "dl"],
        )
    )
    extensions.append(
        Extension(
            "stanch.store._decode",
            sources=sorted(str(path) for path in DECODE.glob("*.c")),
            depends=sorted(str(path) for path in DECODE.glob("*.h")),
            extra_compile_args=flags,
            extra_link_args=link,
        )
    )
    # Not under a sanitizer, which brings a malloc of its own, and for glibc only.
    if not sanitizers and platform.libc_ver()[0] == "glibc":
        extensions.append(
            Extension(
                "stanch.sampler._preload",  # for LD_PRELOAD, never imported
                sources=[str(PRELOAD / "preload.c")],
                depends=[str(PRELOAD / "preload.h"), str(CORE / "filter.h")],
                extra_compile_args=[*flags, "-fno-builtin"],
                libraries=["dl"],
            )
        )

setup(ext_modules=extensions)
