"""Clients that people use: each asks with and without a long body, over one connection, and reads a stream."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.router.models import Model
from tests.router.planes import Plane, running, table
from tests.router.programs import go, node, program

# A program may have to be fetched first.
pytestmark = pytest.mark.timeout(900)

SMALL = '{"inputs": [[1], [2]]}'
EXPECTED = {"predictions": [0.5, 0.5], "arm": "champion"}

GO = """
package main

import ("fmt"; "io"; "net/http"; "os"; "strings")

func ask(method string, body io.Reader) {
    request, _ := http.NewRequest(method, os.Args[1] + "/invocations", body)
    request.Header.Set("X-Unit", "go")
    answer, err := http.DefaultClient.Do(request)
    if err != nil { panic(err) }
    text, err := io.ReadAll(answer.Body)
    if err != nil { panic(err) }
    answer.Body.Close()
    fmt.Println(answer.StatusCode, string(text))
}

func main() {
    for i := 0; i < 3; i++ { ask("POST", strings.NewReader(os.Args[2])) }
    ask("GET", nil)
    ask("HEAD", nil)
    // A reader of unknown length is sent in chunks.
    ask("POST", io.MultiReader(strings.NewReader(os.Args[2])))
    ask("POST", strings.NewReader(strings.Repeat(" ", 3000000) + os.Args[2]))
}
"""

FETCH = """
const [url, body] = process.argv.slice(1);
const ask = async (options) => {
  const answer = await fetch(url + "/invocations", {headers: {"X-Unit": "js"}, ...options});
  console.log(answer.status, await answer.text());
};
for (let i = 0; i < 3; i++) await ask({method: "POST", body});
await ask({method: "GET"});
await ask({method: "HEAD"});
const stream = new ReadableStream({start(c) { c.enqueue(new TextEncoder().encode(body)); c.close(); }});
await ask({method: "POST", body: stream, duplex: "half"});
await ask({method: "POST", body: " ".repeat(3000000) + body});
"""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    with Model("champion") as champion, running(tmp_path, table(1, champion.address)) as running_plane:
        yield running_plane


def assert_all_served(printed: str) -> None:
    """Three small requests, GET, HEAD, one in chunks and a long one."""
    lines = [line.partition(" ") for line in printed.splitlines()]
    assert [status for status, _, _ in lines] == ["200"] * 7
    bodies = [text for _, _, text in lines]
    assert [json.loads(text) for text in bodies[:3]] == [EXPECTED] * 3
    assert json.loads(bodies[3])["arm"] == "champion"
    assert bodies[4] == ""
    assert [json.loads(text) for text in bodies[5:]] == [EXPECTED] * 2


def test_httpx(plane: Plane) -> None:
    with httpx.Client(base_url=plane.url, headers={"X-Unit": "py"}) as client:
        answers = [client.post("/invocations", content=SMALL) for _ in range(3)]
        answers += [client.get("/invocations"), client.head("/invocations")]
        answers.append(client.post("/invocations", content=iter([SMALL.encode()])))
        answers.append(client.post("/invocations", content=" " * 3_000_000 + SMALL))
    assert_all_served("\n".join(f"{a.status_code} {a.text}" for a in answers))


def test_curl(plane: Plane, tmp_path: Path) -> None:
    curl = program("curl")
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text(SMALL)
    large.write_text(" " * 3_000_000 + SMALL)
    url = f"{plane.url}/invocations"
    shape = ["-s", "-S", "-m", "20", "-H", "X-Unit: c", "-w", "\n", "-o", "-"]
    posted = [f"@{small}"] * 3 + [f"@{large}"]
    for data in posted:
        done = subprocess.run([curl, *shape, "--data-binary", data, url], capture_output=True, check=True, timeout=30)
        assert json.loads(done.stdout) == EXPECTED
    chunked = [curl, *shape, "-H", "Transfer-Encoding: chunked", "--data-binary", posted[0], url]
    done = subprocess.run(chunked, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == EXPECTED
    # Several over one connection, by HTTP/1.0 as well, and what HEAD says.
    for more in (["--http1.0"], [], ["-I"]):
        done = subprocess.run([curl, *shape, *more, url, url], capture_output=True, check=True, timeout=30)
        assert done.stdout.count(b"champion" if more != ["-I"] else b"200 OK") == 2


def test_go(plane: Plane, tmp_path: Path) -> None:
    program = go()
    source = tmp_path / "client.go"
    source.write_text(GO)
    done = subprocess.run(
        [program, "run", str(source), plane.url, SMALL],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
    )
    assert done.returncode == 0, done.stderr
    assert_all_served(done.stdout)


def test_fetch(plane: Plane) -> None:
    program = node()
    done = subprocess.run(
        [program, "--input-type=module", "-e", FETCH, plane.url, SMALL],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert_all_served(done.stdout)
