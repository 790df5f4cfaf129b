"""The files that the tidy tests look at: what git tracks or would track."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("controller", "router", "tests")
# Only for a tree without git, such as an unpacked archive; git itself reads .gitignore.
_NOT_OURS = {"build", "dist", "mlruns", "mlartifacts", "__pycache__"}


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project, relative to its root, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if (ROOT / ".git").exists() and listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.split("\0") if name]
    else:
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if _ours(path.relative_to(ROOT))]
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def _ours(path: Path) -> bool:
    hidden_folder = any(part.startswith(".") and part != ".ci" for part in path.parts[:-1])
    generated = any(part in _NOT_OURS or part.endswith(".egg-info") for part in path.parts)
    return not hidden_folder and not generated


def texts() -> Iterator[tuple[Path, str]]:
    """Each file that is text, with its content as it stands on the disk (line ends not translated)."""
    for path in files():
        try:
            text = (ROOT / path).read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            yield path, text


@cache
def modules() -> tuple[tuple[Path, ast.Module], ...]:
    """Each Python file of the packages, parsed."""
    return tuple(
        (path, ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path)))
        for path in files()
        if path.suffix == ".py" and path.parts[0] in PACKAGES
    )
