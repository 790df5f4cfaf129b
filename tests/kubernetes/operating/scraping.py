"""A real Prometheus that looks at one target every second."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bench_router.processes import free_port
from tests.embedded.machine import wait_for
from tests.kubernetes.leashed import Leashed


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[str]:
    """Its address, until the end of the block."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs-apt: prometheus")
    config, address = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    jobs = f"[{{job_name: gateway, static_configs: [{{targets: ['{target}']}}]}}]"
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: {jobs}\n")
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={address}"]  # fmt: skip
    running = Leashed(command, folder / "prometheus.log")

    def up() -> bool:
        assert running.exit_code is None, running.said()
        try:
            asked = httpx.get(f"http://{address}/api/v1/query?query=up", timeout=2.0, trust_env=False)
        except httpx.TransportError:
            return False
        return asked.status_code == 200 and '"1"' in asked.text

    try:
        wait_for("Prometheus has looked at the gateway", up, 60)
        yield f"http://{address}"
    finally:
        running.stop()
