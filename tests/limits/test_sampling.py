"""Samples come from real processes and a real Prometheus, and go through a journal into the same folds again."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.core.cells import EpochPlan, StatisticsQuery
from controller.core.fold import Statistics
from controller.core.plans import metric_plan
from controller.core.resources import ResourceFold
from controller.edges.engine import JournalSource
from controller.edges.gauges import ProcessGauges, Prometheus, SampledSource
from controller.edges.gauges.journal import NAME, SampleJournal
from controller.edges.servers import LocalServers
from controller.errors import EdgeError
from controller.gauge import substituted
from controller.status import Frozen
from tests.decide.rollouts import rollout
from tests.embedded.registered import free_port
from tests.limits.playing import ERRORS, MINUTE, START

# A parent with a child: 64 MiB each, and the child never rests.
SERVER = """
import subprocess, sys, time
held = bytearray(64 << 20)
held[::4096] = b"x" * len(held[::4096])
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    print("ready", flush=True)
    time.sleep(600)
print("ready", flush=True)
while True:
    pass
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[LocalServers, psutil.Process]]:
    """A table in which the challenger's version 2 is served by a process with a child."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, SERVER], stdout=subprocess.PIPE)
    process = psutil.Process(server.pid)
    try:
        assert server.stdout is not None
        assert (server.stdout.readline(), server.stdout.readline()) == (b"ready\n", b"ready\n")
        servers = LocalServers(tmp_path / "servers.sqlite")
        servers.ensure("challenger", "2")
        servers.put_process("2", server.pid, process.create_time())
        yield servers, process
        servers.close()
    finally:
        for one in (*process.children(), process):
            with contextlib.suppress(psutil.Error):
                one.kill()
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


def query(*metrics: dict[str, object], epoch: int = 1) -> StatisticsQuery:
    spec = rollout(metrics=[ERRORS, *metrics]).spec
    plans = tuple(metric_plan(spec, m, Frozen(source="Declared")) for m in spec.metrics[1:])
    return StatisticsQuery("late", 1, (EpochPlan(epoch, "weight", 100_000, {}),), plans, (), 0)


MEMORY = {"name": "memory", "kind": "Resource", "query": "memory", "limit": "2Gi", "window": "1m"}


def test_memory_is_that_of_the_process_and_its_children(served: tuple[LocalServers, psutil.Process]) -> None:
    servers, process = served
    value = ProcessGauges(servers).measure("m", "memory", "challenger")
    resident = sum(p.memory_info().rss for p in (process, *process.children()))
    assert value is not None
    assert value / 1_000 == pytest.approx(resident, rel=0.05)
    assert value / 1_000 > 2 * (64 << 20)


def test_cpu_is_what_was_used_since_the_last_look_in_cores(served: tuple[LocalServers, psutil.Process]) -> None:
    servers, process = served
    gauges = ProcessGauges(servers)
    assert gauges.measure("m", "cpu", "challenger") is None
    (child,) = process.children()
    before, began = sum(child.cpu_times()[:2]), time.monotonic()
    while sum(child.cpu_times()[:2]) < before + 0.3:
        assert time.monotonic() < began + 60, "the child gets no time"
    value = gauges.measure("m", "cpu", "challenger")
    assert value is not None
    used = (sum(child.cpu_times()[:2]) - before) / (time.monotonic() - began)
    assert value / 1_000 == pytest.approx(used, rel=0.25)


def test_a_process_that_is_gone_or_another_with_its_number_is_not_measured(
    served: tuple[LocalServers, psutil.Process],
) -> None:
    servers, process = served
    gauges = ProcessGauges(servers)
    with pytest.raises(EdgeError, match="no process of ours serves the champion"):
        gauges.measure("m", "memory", "champion")
    servers.put_process("2", os.getpid(), process.create_time() - 100)
    with pytest.raises(EdgeError, match="the server of version 2 cannot be measured"):
        gauges.measure("m", "memory", "challenger")


class Bench:
    """A sampled source on disk; ``minutes`` of it."""

    def __init__(self, folder: Path, servers: LocalServers, prometheus: Prometheus | None = None) -> None:
        self.folder, self.servers, self.prometheus = folder, servers, prometheus
        self.now = START
        self.open()

    def open(self) -> None:
        """Also after ``close``: another life of the process."""
        journals = JournalSource(self.folder / "journal", self.folder / "engine.duckdb")
        self.source = SampledSource(journals, SampleJournal(self.folder / "journal"), self.servers, self.prometheus)

    def read(self, asked: StatisticsQuery, ticks: int) -> Statistics:
        """A tick every ten seconds."""
        for _ in range(ticks):
            said = self.source.read(asked, self.now)
            self.now += MINUTE // 6
        return said


def resource(said: Statistics, name: str = "memory") -> ResourceFold:
    found = said.folds[name, ""]
    assert isinstance(found, ResourceFold)
    return found


def test_what_was_measured_is_in_the_journal_and_gives_the_same_folds_again(
    served: tuple[LocalServers, psutil.Process], tmp_path: Path
) -> None:
    servers, _ = served
    bench = Bench(tmp_path, servers)
    bench.read(query(MEMORY), 10)
    bench.source.close()
    bench.open()
    said = bench.read(query(MEMORY), 10)
    assert len(resource(said).recent) == 3
    assert all(w.value / 1_000 > 2 * (64 << 20) for w in resource(said).recent)
    assert (said.losses.lost, said.losses.malformed) == (0, 0)
    assert "champion: no process" in said.troubles["memory"]
    bench.source.close()
    again = JournalSource(tmp_path / "journal", None)
    assert dict(again.read(query(MEMORY), bench.now - MINUTE // 6).folds) == dict(said.folds)
    again.close()
    assert len(list((tmp_path / "journal").glob(f"{NAME}.*.jsonl"))) == 2


def test_a_disk_that_takes_no_sample_costs_no_other_evidence_and_says_why(
    served: tuple[LocalServers, psutil.Process], tmp_path: Path
) -> None:
    servers, _ = served
    (tmp_path / "full").touch()
    source = SampledSource(JournalSource(tmp_path / "journal", None), SampleJournal(tmp_path / "full"), servers, None)
    assert "samples cannot be written" in source.read(query(MEMORY), START).troubles["memory"]
    (tmp_path / "full").unlink()
    assert "samples cannot be written" not in source.read(query(MEMORY), START + MINUTE).troubles["memory"]
    source.close()


SCRAPED = """
import sys, time
from prometheus_client import Gauge, start_http_server
server, _ = start_http_server(0, "127.0.0.1")
rss = Gauge("model_rss", "Resident memory.", ("version", "pod"))
for pod, size in (("a", 1), ("b", 2)):
    rss.labels("1", pod).set(size)
    rss.labels("2", pod).set(3 * size)
print(server.server_port, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes a real exposition of ``model_rss`` (by version and pod) once a second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs-apt: prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with running([sys.executable, "-c", SCRAPED], folder / "scraped.log") as scraped:
        assert scraped.stdout is not None
        target = f"127.0.0.1:{int(scraped.stdout.readline())}"
        config = folder / "prometheus.yml"
        static = f"[{{job_name: models, static_configs: [{{targets: ['{target}']}}]}}]"
        config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: {static}\n")
        address = f"127.0.0.1:{free_port()}"
        command = [
            program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ]  # fmt: skip
        with running(command, folder / "prometheus.log"):
            asking, end = Prometheus(f"http://{address}", deadline_s=5.0), time.monotonic() + 60
            while asking.ask(['sum(model_rss{version="2"})']) != [9.0]:
                assert time.monotonic() < end, (folder / "prometheus.log").read_text()
                time.sleep(0.2)
            asking.close()
            yield f"http://{address}"


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[LocalServers]:
    servers = LocalServers(tmp_path / "servers.sqlite")
    servers.ensure("champion", "1")
    servers.ensure("challenger", "2")
    yield servers
    servers.close()


def told(url: str, folder: Path, servers: LocalServers, *texts: str) -> Statistics:
    """Two minutes of the queries ``texts``, called q0, q1 …"""
    metrics = [{**MEMORY, "name": f"q{i}", "query": text, "limit": 5} for i, text in enumerate(texts)]
    bench = Bench(folder, servers, Prometheus(url, deadline_s=5.0))
    said = bench.read(query(*metrics), 13)
    bench.source.close()
    return said


def test_a_real_prometheus_is_asked_for_each_arm_by_its_version(
    prometheus: str, versions: LocalServers, tmp_path: Path
) -> None:
    said = told(prometheus, tmp_path, versions, 'sum(model_rss{version="$version"})', "max(model_rss)")
    assert said.troubles == {}
    assert [w.value for w in resource(said, "q0").recent] == [9_000, 9_000]
    assert resource(said, "q0").open_champion == (2, 6_000)
    # What names no arm is the challenger's.
    assert [w.value for w in resource(said, "q1").recent] == [6_000, 6_000]
    assert resource(said, "q1").open_champion == (0, 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sum(model_rss{", "challenger: Prometheus refuses the query: invalid parameter"),
        ('model_rss{version="$version"}', "challenger: the query has 2 series; one is needed: write sum(…) or max(…)"),
        ("model_rss[5m]", "challenger: the query is a matrix; an instant vector of one series, or a scalar, is needed"),
        ("absent_metric", "challenger: the query has no value now"),
        ("0 / 0 * max(model_rss)", "challenger: the query has no value now"),
        ("1e18", "challenger: 1e+18 is no value of a gauge"),
    ],
)
def test_a_query_that_gives_no_number_makes_no_sample_and_says_why(
    prometheus: str, versions: LocalServers, tmp_path: Path, text: str, why: str
) -> None:
    said = told(prometheus, tmp_path, versions, text, "vector(1)")
    assert said.troubles["q0"].startswith(why)
    assert ("q0", "") not in said.folds
    assert len(resource(said, "q1").recent) == 2


def test_a_prometheus_that_is_away_or_something_else_makes_no_sample(versions: LocalServers, tmp_path: Path) -> None:
    said = told(f"http://127.0.0.1:{free_port()}", tmp_path, versions, "vector(1)")
    assert said.troubles["q0"].startswith("challenger: Prometheus: not reachable")
    assert not said.folds


def test_a_placeholder_cannot_end_the_text_it_stands_in() -> None:
    values = {"version": '2"} or vector(9)', "rollout": "a'b"}
    text = substituted('sum(rss{v="$version",r=\'$rollout\',x=~"a$"})', values)
    assert text == 'sum(rss{v="2\\"} or vector(9)",r=\'a\\\'b\',x=~"a$"})'
