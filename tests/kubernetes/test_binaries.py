"""Where the control plane's programs come from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded.machine import alive, wait_for
from tests.kubernetes import binaries

# Makes a folder as the build does, and waits half-way for a file. Notes that it began, and as which process.
MAKER = """
import os, pathlib, sys, time
from tests.kubernetes.binaries import kept
target, notes, go_on = map(pathlib.Path, sys.argv[1:])
def make(folder):
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (folder / "first").touch()
    while not go_on.exists():
        time.sleep(0.02)
    (folder / "second").touch()
def say(text):
    print(text, flush=True)
kept(target, make, say)
print(*sorted(path.name for path in target.iterdir()), flush=True)
"""


class Maker:
    """A process that wants the folder."""

    def __init__(self, folder: Path) -> None:
        self.notes, self.go_on = folder / "notes", folder / "go-on"
        command = [sys.executable, "-c", MAKER, str(folder / "made"), str(self.notes), str(self.go_on)]
        self.process = subprocess.Popen(command, cwd=binaries.ROOT, stdout=subprocess.PIPE, text=True)

    def began(self) -> list[int]:
        """Those who have begun to make it."""
        return [int(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def go(folder: Path, build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new Go on the path whose build does what ``build`` says, and an empty cache."""
    script = folder / "go"
    script.write_text(f"#!/bin/sh\nif [ $1 = env ]; then echo go1.99.1; else {build}; fi\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def test_of_two_processes_one_makes_the_programs_and_the_other_waits_for_them(tmp_path: Path) -> None:
    first = Maker(tmp_path)
    wait_for("the first begins", first.began, 30)
    second = Maker(tmp_path)
    assert second.line() == "waiting for another process that makes made"
    assert not (tmp_path / "made").exists()
    first.go_on.touch()
    assert [first.line(), second.line()] == ["first second", "first second"]
    assert [first.process.wait(10), second.process.wait(10), first.began()] == [0, 0, [first.process.pid]]


def test_a_process_that_is_killed_over_it_leaves_nothing_that_looks_whole_and_holds_nobody_up(tmp_path: Path) -> None:
    first = Maker(tmp_path)
    wait_for("the first begins", first.began, 30)
    first.process.kill()
    first.process.wait()
    assert not (tmp_path / "made").exists()
    first.go_on.touch()
    second = Maker(tmp_path)
    assert second.line() == "first second"
    assert second.process.wait(10) == 0


def test_assets_of_ones_own_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert binaries.programs(print) == tmp_path


def test_assets_that_lack_a_program_are_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch(0o755)
    (tmp_path / "kubectl").touch(0o644)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(binaries.Unavailable, match="has no kube-apiserver, kubectl that can be run"):
        binaries.programs(print)


def test_a_build_that_fails_says_why_and_what_else_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path, "echo no route to the module proxy >&2; exit 1", monkeypatch)
    with pytest.raises(binaries.Unavailable) as caught:
        binaries.programs(print)
    assert "ended with code 1" in str(caught.value)
    assert "no route to the module proxy" in str(caught.value)
    assert "KUBEBUILDER_ASSETS may name a folder" in str(caught.value)


def test_a_build_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    go(tmp_path, f"sleep 600 & echo $! > {note}; wait", monkeypatch)
    monkeypatch.setattr(binaries, "BUILD_WITHIN_S", 0.5)
    monkeypatch.setattr(binaries, "SAY_EVERY_S", 0.25)
    said: list[str] = []
    with pytest.raises(binaries.Unavailable, match=r"took more than 0\.5 s"):
        binaries.programs(said.append)
    assert any(text.startswith("building: 0 modules fetched, 0 packages compiled") for text in said)
    wait_for("the compiler's end", lambda: not alive(int(note.read_text())), 10)


def test_what_builds_the_programs_has_the_name_of_their_version() -> None:
    assert binaries.KUBERNETES.startswith("v1.")
    assert f"k8s.io/api {binaries.KUBERNETES.replace('v1.', 'v0.')}" in (binaries.SOURCE / "go.mod").read_text()
