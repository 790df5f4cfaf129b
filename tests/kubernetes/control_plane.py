"""A Kubernetes control plane: etcd and kube-apiserver, and kube-controller-manager once it is asked for."""

import csv
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes import client

from tests.bench_router.processes import free_port
from tests.embedded.machine import wait_for
from tests.kubernetes.leashed import Leashed

# A machine with much else to do takes its time; a free one needs three to five seconds.
START_WITHIN_S = 90.0
ATTEMPTS = 3
CALL_WITHIN_S = 20.0
LOOPBACK = "127.0.0.1"
ADMIN, CONTROLLERS = "admin", "system:kube-controller-manager"


class NotStarted(Exception):
    """A server that ended, or was not ready in time; the text has its last words."""


class ControlPlane:
    """Servers with RBAC on; data, keys and logs in ``folder``. A user's token is the user's name, for tests only.

    ``address``: where the API server is. Pods find it at one that is not loopback, by the Service ``kubernetes``.
    """

    def __init__(self, assets: Path, folder: Path, address: str = LOOPBACK) -> None:
        self._assets, self._folder, self._address = assets, folder, address
        self._running: dict[str, Leashed] = {}
        self._flags: dict[str, tuple[str, ...]] = {}
        self.url = ""

    def start(self) -> None:
        """Ready afterwards. Raises NotStarted."""
        self._write_keys()
        end = time.monotonic() + START_WITHIN_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_servers(end)
                break
            except NotStarted:
                # Somebody else may have taken a port between our look and its use.
                self.stop()
                if attempt == ATTEMPTS:
                    raise
        self._write_kubeconfig(ADMIN)

    def _start_servers(self, end: float) -> None:
        etcd = f"http://127.0.0.1:{free_port()}"
        self.run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        port = free_port()
        self.run(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--cert-dir={self._folder}",
            f"--bind-address={self._address}",
            f"--secure-port={port}",
            # Loopback cannot be where a Service leads.
            f"--endpoint-reconciler-type={'none' if self._address == LOOPBACK else 'lease'}",
            "--kubelet-preferred-address-types=InternalIP",
            # Without a node nobody forwards what is sent to a Service; on loopback a test may listen there itself.
            f"--service-cluster-ip-range={'127.200.0.0/16' if self._address == LOOPBACK else '10.0.0.0/16'}",
            "--authorization-mode=RBAC",
            f"--audit-policy-file={self._folder / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=100000",  # MB: whoever counts reads one file
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._folder / 'accounts.key'}",
            f"--service-account-key-file={self._folder / 'accounts.pub'}",
        )
        self.url = f"https://{self._address}:{port}"
        self._until_ready(end)

    def _until_ready(self, end: float) -> None:
        while not self._is_ready():
            self.check("etcd", "kube-apiserver")
            if time.monotonic() > end:
                raise NotStarted(f"not ready within {START_WITHIN_S:g} s: {self._running['kube-apiserver'].said()}")
            time.sleep(0.05)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Without the API server, every connection to which is cut. Afterwards it is back where it was, with all that
        it knew. Raises NotStarted."""
        killed = self._running.pop("kube-apiserver")
        os.kill(killed.pid, signal.SIGKILL)
        killed.stop()
        try:
            yield
        finally:
            self.run("kube-apiserver", *self._flags["kube-apiserver"])
            self._until_ready(time.monotonic() + START_WITHIN_S)

    @contextmanager
    def put_back(self, backup: Path) -> Iterator[None]:
        """Afterwards all is as it was before, as where a backup is restored. ``backup``: a folder that is not there
        yet. Raises NotStarted."""
        data = self._folder / "etcd"
        with self.down():
            self._etcd_again(lambda: shutil.copytree(data, backup))
        try:
            yield
        finally:
            with self.down():
                self._etcd_again(lambda: (shutil.rmtree(data), backup.rename(data)))

    def _etcd_again(self, meanwhile: Callable[[], object]) -> None:
        self._running.pop("etcd").stop()
        meanwhile()
        self.run("etcd", *self._flags["etcd"])

    def run_controllers(self) -> None:
        """Those of Kubernetes itself: namespaces and owners are cleaned up, Deployments get their ReplicaSets and
        pods, which no node runs. A second call does nothing. Raises NotStarted."""
        if "kube-controller-manager" in self._running:
            return
        if not (self._assets / "kube-controller-manager").exists():
            raise NotStarted(f"{self._assets} (KUBEBUILDER_ASSETS) has no kube-controller-manager")
        self.run(
            "kube-controller-manager",
            f"--kubeconfig={self._write_kubeconfig(CONTROLLERS)}",
            f"--service-account-private-key-file={self._folder / 'accounts.key'}",
            f"--root-ca-file={self.certificate}",
            "--leader-elect=false",
            "--secure-port=0",
        )
        end, core = time.monotonic() + START_WITHIN_S, client.CoreV1Api(self.api())
        while not core.list_namespaced_service_account("default", _request_timeout=CALL_WITHIN_S).items:
            self.check("kube-controller-manager")
            if time.monotonic() > end:
                raise NotStarted(f"no service account: {self._running['kube-controller-manager'].said()}")
            time.sleep(0.05)

    @property
    def certificate(self) -> Path:
        """The server's own, which clients trust."""
        return self._folder / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._folder / f"default.{ADMIN}.json"

    @property
    def audit_log(self) -> Path:
        """A line for each request that a service account has made, with what was decided of it."""
        return self._folder / "audit.log"

    @property
    def command(self) -> list[str]:
        """kubectl as the administrator; its cache is this server's own."""
        files = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self._folder / 'kubectl'}"]
        return [str(self._assets / "kubectl"), *files]

    def kubectl(self, *arguments: str, given: dict[str, Any] | None = None) -> str:
        """What the command prints, as the administrator; ``given`` goes to its standard input. AssertionError where
        it fails."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=json.dumps(given) if given else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def define(self, tree: dict[str, Any]) -> None:
        """Apply a CustomResourceDefinition, and wait until its objects are served and clients can discover them."""
        self.kubectl("apply", "--server-side", "-f", "-", given=tree)
        spec = tree["spec"]
        group, version, plural = spec["group"], spec["versions"][0]["name"], spec["names"]["plural"]
        custom = client.CustomObjectsApi(self.api())

        def discovered() -> bool:
            try:
                found = custom.get_api_resources(group, version, _request_timeout=CALL_WITHIN_S)
            except client.ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                return False
            return any(each.name == plural for each in found.resources)

        wait_for(f"{plural} of {group} are served", discovered, 60)

    def api(self, user: str = ADMIN) -> client.ApiClient:
        """A client; whoever is not the administrator may do what RBAC grants, by impersonation."""
        made = client.Configuration()
        made.host, made.ssl_ca_cert, made.proxy = self.url, str(self.certificate), None
        made.api_key = {"authorization": f"Bearer {ADMIN}"}
        api = client.ApiClient(made)
        if user != ADMIN:
            api.set_default_header("Impersonate-User", user)
        return api

    def pids(self) -> dict[str, int]:
        """Of what runs, by name."""
        return {name: each.pid for name, each in self._running.items() if each.exit_code is None}

    def stop(self) -> None:
        """End everything, those first who talk to the others."""
        for name in reversed(list(self._running)):
            self._running.pop(name).stop()

    def run(self, name: str, *flags: str) -> None:
        """One more of the programs, which ends with the others. OSError: it cannot be run."""
        self._flags[name] = flags
        self._running[name] = Leashed([str(self._assets / name), *flags], self._folder / f"{name}.log")

    def check(self, *names: str) -> None:
        """Raises NotStarted where one of them has ended."""
        for name in names:
            code = self._running[name].exit_code
            if code is not None:
                raise NotStarted(f"{name} ended with code {code}: {self._running[name].said()}")

    def _is_ready(self) -> bool:
        try:
            trusted = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.certificate))
            # Whatever proxy the environment names does not lead to our own loopback.
            directly = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusted)
            with directly.open(f"{self.url}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False  # also while there is no certificate yet

    def login(self, namespace: str, account: str) -> Path:
        """The kubeconfig of a service account, with a token of its own."""
        token = self.kubectl("-n", namespace, "create", "token", account).strip()
        return self._write_kubeconfig(account, token, namespace)

    def _write_keys(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        coding = serialization.Encoding.PEM
        secret = key.private_bytes(coding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(coding, serialization.PublicFormat.SubjectPublicKeyInfo)
        (self._folder / "accounts.key").write_bytes(secret)
        (self._folder / "accounts.pub").write_bytes(public)
        accounts = {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]}
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [accounts, {"level": "None"}]}
        (self._folder / "audit.json").write_text(json.dumps(policy))
        with (self._folder / "tokens.csv").open("w", newline="") as file:
            csv.writer(file).writerows([name, name, name, "system:masters"] for name in (ADMIN, CONTROLLERS))

    def _write_kubeconfig(self, user: str, token: str | None = None, namespace: str = "default") -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token or user}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user, "namespace": namespace}}],
            "current-context": "tests",
        }
        path = self._folder / f"{namespace}.{user.rpartition(':')[2]}.json"
        path.write_text(json.dumps(tree))
        return path


@contextmanager
def running(assets: Path, folder: Path) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, empty, until the end of the block. Raises NotStarted."""
    plane = ControlPlane(assets, folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
