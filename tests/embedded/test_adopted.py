"""Servers that exist already are used as they are, MLflow's own among them, whose status codes lie."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.embedded import registered, rollouts
from tests.embedded.machine import Machine
from tests.embedded.traffic import Traffic
from tests.router.authorities import BOTH, CLIENT, Authority

pytestmark = pytest.mark.timeout(500)


@contextlib.contextmanager
def mlflow_server(tracking: str, model_uri: str, log: Path) -> Iterator[str]:
    """`mlflow models serve`; its address."""
    port = registered.free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model_uri, "-p", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1"],
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking, "PATH": path},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        registered.wait_for_answer(f"http://127.0.0.1:{port}/ping", 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def test_a_challenger_that_crashes_in_mlflows_own_server_is_rolled_back_and_no_user_sees_an_error(
    machine: Callable[..., Machine], tracking: str, tmp_path: Path
) -> None:
    champion = registered.register(tracking, "crashing")
    challenger = registered.register(tracking, "crashing", crash_share=0.3)
    client = MlflowClient(tracking)
    client.set_registered_model_alias("crashing", "champion", champion)
    client.set_registered_model_alias("crashing", "challenger", challenger)
    with mlflow_server(tracking, f"models:/crashing/{challenger}", tmp_path / "serve.log") as url:
        plan = rollouts.plan(
            model={"name": "crashing"}, servers={"challenger": {"url": url}}, steps=[{"weight": 50, "hold": "60s"}]
        )
        # Controller and applications show the router certificates here, and it shows them its own.
        authority = Authority(tmp_path / "authority")
        cert, key = authority.sign("machine", BOTH)
        secured = ["--control-ca", str(authority.cert), "--control-cert", str(cert), "--control-key", str(key)]
        run = machine(plan, "--tracking-uri", tracking, "--until-end", "--output", "json", *secured)
        traffic, control = run.addresses()
        assert control.startswith("https://")
        tls = ssl.create_default_context(cafile=authority.cert)
        tls.load_cert_chain(*authority.sign("application", (CLIENT,)))
        run.served(200)
        with Traffic(traffic, control, 1, units=50_000, tls=tls) as users:
            run.until("the rollback", lambda s: s.status.progress in ("RollingBack", "RolledBack"), 120)
        assert run.ended(120) == 1
        (said,) = json.loads(run.out.read_text().splitlines()[-1])["rollouts"]
        assert (said["result"], said["metric"]) == ("RolledBack", "errors")
        assert users.troubles == []
        assert users.acknowledged
        # It is somebody else's process: still there, and never started again by us.
        assert "server-" + challenger not in {path.stem for path in (run.state / "logs").iterdir()}
        registered.wait_for_answer(f"{url}/ping", 5)
    assert "challenger" not in client.get_registered_model("crashing").aliases
