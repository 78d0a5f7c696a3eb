"""An aarch64 Python under qemu-user, without a root file system: what it takes, from the ordinary registries.

    apt-get install qemu-user
    python benchmarks/runtimes.py --runtime aarch64

A dozen Debian packages hold Python and the C library, three wheels the rest. Nothing is installed on this machine.
onnxruntime 1.32 crashes under qemu 7.2 (Debian 12), 1.27 works.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["CPUS", "emulated_python", "missing_tools"]

CPUS = ("cortex-a53", "cortex-a76", "max")
"""The second has the dot products that int8 kernels use, the first has not, the last has all that QEMU knows."""
DEBIAN = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g",
    "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1", "libsqlite3-0",
)  # fmt: skip
WHEELS = ("numpy", "tokenizers", "pillow", "onnxruntime==1.27.0")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
TOOLS = ("qemu-aarch64", "apt-get", "dpkg")


def missing_tools() -> list[str]:
    """What this machine lacks."""
    return [name for name in TOOLS if shutil.which(name) is None]


def emulated_python(work: Path, cpu: str, paths: list[Path]) -> list[str]:
    """The command of a Python on an emulated `cpu`, which imports from the wheels and from `paths`.

    Args:
        work: a folder for what is fetched, once.
        cpu: one of `CPUS`.
        paths: more folders for PYTHONPATH.
    """
    work = work.resolve()
    root, packages = work / "root", work / "packages"
    if not (work / "done").exists():
        _fetch_debian(work, root)
        _fetch_wheels(packages)
        (work / "done").touch()

    python_path = ":".join(map(str, [packages, *(path.resolve() for path in paths)]))
    environment = ["-E", f"PYTHONPATH={python_path}", "-E", f"PYTHONHOME={root}/usr"]
    return ["qemu-aarch64", "-L", str(root), "-cpu", cpu, *environment, str(root / "usr" / "bin" / "python3.11")]


def _fetch_debian(work: Path, root: Path) -> None:
    """Unpack arm64 packages of this machine's own Debian release; apt's lists go to `work` too."""
    state, debs = work / "apt", work / "debs"
    for folder in (state / "lists" / "partial", state / "cache" / "archives" / "partial", debs, root):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()

    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
    }
    apt = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *DEBIAN], cwd=debs, check=True)

    for deb in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", deb, root], check=True)


def _fetch_wheels(folder: Path) -> None:
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    interpreter = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--target", str(folder)]
    subprocess.run([*pip, *platforms, *interpreter, *WHEELS], check=True)
