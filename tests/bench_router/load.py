"""The load: wrk on one core, POST requests of 100,000 users over kept connections."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.bench_router.processes import debian

_SCRIPT = """
local requests, at = {}, 0
function init(args)
  local file = assert(io.open(args[1], "rb"))
  local body = file:read("*a")
  file:close()
  local headers = {["Content-Type"] = "application/json"}
  for i = 1, 10000 do
    headers["x-user-id"] = "user-" .. ((i * 7919) % 100000)
    requests[i] = wrk.format("POST", "/invocations", headers, body)
  end
end
function request()
  at = at % 10000 + 1
  return requests[at]
end
function done(summary, latency, all)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


BODY = json.dumps(
    {"dataframe_split": {"columns": ["carrier", "origin", "dest", "dep_delay", "distance"],
                         "data": [["UA", "EWR", "IAH", 12.0, 1400.0], ["AA", "JFK", "MIA", -3.0, 1089.0]]}}
).encode()  # fmt: skip


# Two rows of a model with a hundred features: 3 KiB.
FEATURES = json.dumps(
    {"dataframe_split": {"columns": [f"x{i}" for i in range(100)],
                         "data": [[round(row + i / 7, 4) for i in range(100)] for row in range(2)]}}
).encode()  # fmt: skip


class Measured(NamedTuple):
    """One measurement: requests, requests a second, latency in milliseconds, and answers that were none."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def status(port: int, body: bytes) -> int:
    """The status of one answer, asked for as the load asks; 0 where there is none. wrk counts 4xx and 5xx alone."""
    headers = {"Content-Type": "application/json", "x-user-id": "user-1"}
    url = f"http://127.0.0.1:{port}/invocations"
    try:
        return httpx.post(url, content=body, headers=headers, timeout=10, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


class Load:
    """Sends one body from ``cores``."""

    def __init__(self, directory: Path, cores: str, body: bytes) -> None:
        self._wrk = debian("wrk", "wrk")
        self._cores = cores
        self._script = directory / "load.lua"
        self._script.write_text(_SCRIPT)
        self.body = body
        self._body = directory / f"body-{len(body)}"
        self._body.write_bytes(body)

    def run(self, port: int, connections: int, seconds: int) -> Measured:
        """So many connections for so long."""
        command = [
            "taskset", "-c", self._cores, self._wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
            "-s", str(self._script), f"http://127.0.0.1:{port}", "--", str(self._body),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        said = json.loads(done.stdout.rpartition("RESULT ")[2])
        return Measured(
            said["requests"],
            said["requests"] / (said["us"] / 1e6),
            said["p50_us"] / 1e3,
            said["p99_us"] / 1e3,
            said["errors"],
        )
