"""The project as its wheel has it, where the path of a request is compiled: built here once and kept, for what measures
the router or tries it.

``python -m tests.compiled -m tests.router.soak …`` runs a program of the tests there; without
arguments it is built. Where it cannot be built, ``run`` says why and takes the sources, which do the same in more time.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "compiled"
_WITHIN_S = 1_200.0


class Unavailable(Exception):
    """It could not be built. The text says why."""


def _key(*names: str) -> str:
    """Of everything in these files and folders, and of who is to compile and run it."""
    compiler = importlib.metadata.version("mypy")
    digest = hashlib.sha256(f"{sys.version} {sysconfig.get_platform()} {compiler}".encode())
    for path in sorted(path for name in names for path in (ROOT / name, *(ROOT / name).rglob("*"))):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(directory: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-deps", "--wheel-dir", str(directory), str(ROOT)],
        env=os.environ | {"UNDERSTUDY_COMPILE": "1"}, capture_output=True, text=True, timeout=_WITHIN_S, check=False,
    )  # fmt: skip
    wheels = list(directory.glob("*.whl"))
    if done.returncode or not wheels:
        raise Unavailable(f"the wheel was not built:\n{(done.stdout + done.stderr)[-2_000:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(directory)
    wheels[0].unlink()


def tree() -> Path:
    """A folder with the wheel's contents, and the tests as they are now. Raises Unavailable."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = PLACE / _key("router", "controller", "hatch_build.py", "pyproject.toml")
        if not found.exists():
            with tempfile.TemporaryDirectory(dir=PLACE) as folder:
                made = Path(folder) / "made"
                made.mkdir()
                _build(made)
                shutil.copy(ROOT / "pyproject.toml", made)
                for old in PLACE.iterdir():
                    if old.is_dir() and old != Path(folder):
                        shutil.rmtree(old)
                made.rename(found)
        _copy_tests(found)
    return found


def _copy_tests(place: Path) -> None:
    """And the pages that they hold the router against."""
    stamp, key = place / "tests.key", _key("tests", "docs")
    if not stamp.exists() or stamp.read_text() != key:
        for name in ("tests", "docs"):
            shutil.rmtree(place / name, ignore_errors=True)
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        stamp.write_text(key)


def environment(place: Path) -> dict[str, str]:
    """What a Python program has to be started with to import from there, wherever it is started."""
    return {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}


def run(arguments: list[str]) -> None:
    """Become ``python arguments`` there, or here where there is no such place."""
    try:
        place = tree()
    except Unavailable as unavailable:
        print(f"not compiled: {unavailable}", file=sys.stderr)
        place = ROOT
    os.chdir(place)
    os.environ["PYTHONPATH"] = str(place)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1:])
    print(tree())
