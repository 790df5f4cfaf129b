"""Dockerfiles without Docker: their own steps, run in a chroot on an overlay over a base system.

What our files use is understood, and anything else is refused: a step that is left out here is one that nobody tries.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

UNDERSTOOD = frozenset(("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT"))
RUN_WITHIN_S = 1500.0
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "*.pyc")
# In namespaces of its own: what is mounted and what is started ends with the step. /run is no part of the image.
_RUN = """
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$UPPER,workdir=$WORK" "$MERGED"
mount -t proc proc "$MERGED/proc" && mount --rbind /dev "$MERGED/dev" && mount -t tmpfs tmpfs "$MERGED/run"
mount --bind /etc/resolv.conf "$MERGED/etc/resolv.conf"
[ -z "$AUTHORITIES" ] || cp "$AUTHORITIES" "$MERGED/run/authorities.pem"
exec chroot "$MERGED" /bin/sh -ec "$COMMAND"
"""


class NotUnderstood(Exception):
    """A Dockerfile has what is not tried here; the text names it."""


class StepFailed(Exception):
    """A step has ended with an error; the text has what it said."""


class Step(NamedTuple):
    """One instruction."""

    name: str
    argument: str


class Part(NamedTuple):
    """What Docker calls a stage: ``FROM base AS name`` and what follows."""

    base: str
    name: str
    steps: tuple[Step, ...]


def parts(text: str) -> list[Part]:
    """Those of a Dockerfile, in their order. Raises NotUnderstood."""
    found: list[Part] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, argument = line.strip().partition(" ")
        if name not in UNDERSTOOD:
            raise NotUnderstood(line.strip())
        if name == "FROM":
            base, _, part = argument.partition(" AS ")
            found.append(Part(base.strip(), part.strip(), ()))
        elif not found:
            raise NotUnderstood(f"{line.strip()} before the first FROM")
        else:
            found[-1] = found[-1]._replace(steps=(*found[-1].steps, Step(name, argument.strip())))
    return found


def copied(found: list[Part]) -> list[str]:
    """What is copied from the context, relative to it."""
    steps = [step for part in found for step in part.steps if step.name == "COPY"]
    return sorted({name for step in steps if not step.argument.startswith("--") for name in step.argument.split()[:-1]})


class Building:
    """The parts of one Dockerfile on the base system in ``base``, in folders under ``folder``.

    ``settings``: variables for the steps, such as those that pip is told its index by. They are no part of the image.
    """

    def __init__(self, base: Path, context: Path, folder: Path, settings: Mapping[str, str]) -> None:
        self._base, self._context, self._folder, self._settings = base, context, folder, settings
        self._uppers: dict[str, Path] = {}
        self._at, self._env = "/", {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self._config: dict[str, object] = {}

    def build(self, found: list[Part]) -> tuple[Path, dict[str, object]]:
        """The folder of what the last part adds to the base, and the image's configuration. Raises NotUnderstood,
        StepFailed."""
        environment = dict(self._env)
        upper = self._folder
        for number, part in enumerate(found):
            self._at, self._env, self._config = "/", dict(environment), {}
            upper = self._uppers[part.name] = self._folder / f"part-{number}"
            upper.mkdir()
            for step in part.steps:
                self._take(upper, step)
        variables = [f"{name}={value}" for name, value in self._env.items()]
        return upper, {**self._config, "Env": variables, "WorkingDir": self._at}

    def _take(self, upper: Path, step: Step) -> None:
        match step.name:
            case "WORKDIR":
                self._at = step.argument
                self._within(upper, self._at).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(upper, step.argument.split())
            case "RUN":
                self._run(upper, step.argument)
            case "ENV":
                for each in step.argument.split():
                    name, _, value = each.partition("=")
                    self._env[name] = re.sub(r"\$(\w+)", lambda found: self._env.get(found[1], ""), value)
            case "USER":
                self._config["User"] = step.argument
            case "ENTRYPOINT":
                self._config["Entrypoint"] = json.loads(step.argument)

    def _within(self, upper: Path, path: str) -> Path:
        return upper / os.path.normpath(Path(self._at, path)).lstrip("/")

    def _copy(self, upper: Path, names: list[str]) -> None:
        """As Docker does it: what is in a folder goes into the target, a file into it or to its name."""
        source = self._context
        if names[0].startswith("--"):
            option, _, part = names.pop(0).partition("=")
            if option != "--from" or part not in self._uppers:
                raise NotUnderstood(f"COPY {option}={part}")
            source = self._uppers[part]
        *sources, target = names
        for name in sources:
            found, into = source / name.lstrip("/"), self._within(upper, target)
            if (self._base / name.lstrip("/")).exists() and source is not self._context:
                raise NotUnderstood(f"COPY --from of {name}, which the base system has too")
            if found.is_dir():
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=_LEFT_BEHIND)
            else:
                into = into / found.name if target.endswith("/") else into
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)

    def _run(self, upper: Path, command: str) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            work, merged = Path(scratch, "work"), Path(scratch, "merged")
            work.mkdir()
            merged.mkdir()
            places = {"BASE": self._base, "UPPER": upper, "WORK": work, "MERGED": merged}
            told = {**self._settings, **self._env, **{name: str(path) for name, path in places.items()}}
            told |= {"COMMAND": f"cd {self._at}\n{command}", "AUTHORITIES": told.get("AUTHORITIES", "")}
            namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            done = subprocess.run(
                [*namespaces, "/bin/sh", "-ec", _RUN],
                env=told,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=RUN_WITHIN_S,
                check=False,
            )
        if done.returncode:
            raise StepFailed(f"RUN {command} ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def pip_settings() -> dict[str, str]:
    """What pip is told of its index here, by variables or in its files, for a pip in a chroot; ``AUTHORITIES`` is the
    file of certificates that it trusts."""
    names = {"index-url": "PIP_INDEX_URL", "extra-index-url": "PIP_EXTRA_INDEX_URL", "cert": "PIP_CERT"}
    told = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    for option, variable in names.items():
        command = [sys.executable, "-m", "pip", "config", "get", f"global.{option}"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        value = os.environ.get(variable) or (said.stdout.strip() if not said.returncode else "")
        if value:
            told[variable] = value
    authorities = told.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE", "")
    if authorities:
        told |= {"PIP_CERT": "/run/authorities.pem", "AUTHORITIES": authorities}
    return told
