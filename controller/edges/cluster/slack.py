"""News to Slack by the webhook that a Secret of the rollout's namespace holds, read when there is something to send.

Whatever is wrong with the Secret costs messages, which wait in status, and never a tick.
"""

import base64
import contextlib
import time
from collections.abc import Callable

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import SECRETS
from controller.edges.notifier import SlackNotifier
from controller.errors import EdgeError, NotFound, SpecError
from controller.spec import Notify, SecretKey
from controller.status import Notice

FRESH_S = 60.0  # for so long what was read is taken for what is there
AGAIN_S = 5.0  # the same after a failure, which a renewed Secret may end


class SecretSlack:
    """``Notifier`` by what ``declared`` says now; without a Slack in it there is nothing to deliver. ``tell``: people,
    of an address that cannot be had."""

    def __init__(
        self,
        access: Access,
        namespace: str,
        declared: Callable[[], Notify],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: monotonic seconds."""
        self._access, self._namespace, self._declared = access, namespace, declared
        self._tell, self._clock = tell, clock
        self._read_of: SecretKey | None = None
        self._fresh_until = 0.0
        self._fault = self._told = ""
        self._address = ""
        self._slack: SlackNotifier | None = None

    def send(self, notice: Notice) -> None:
        """As the port says."""
        slack = self._declared().slack
        if slack is None:
            return
        if slack.secret_ref != self._read_of or self._clock() >= self._fresh_until:
            self._look(slack.secret_ref)
        if self._slack is None:
            raise EdgeError(self._fault)
        try:
            self._slack.send(notice)
        except EdgeError:
            self._fresh_until = min(self._fresh_until, self._clock() + AGAIN_S)
            raise

    def _look(self, reference: SecretKey) -> None:
        """Read the address; what is wrong with it is kept and told."""
        self._read_of = reference
        try:
            address = self._found(reference)
            if address != self._address or self._slack is None:
                self._forget()
                self._slack, self._address = SlackNotifier(address), address
        except (EdgeError, SpecError) as error:
            self._forget()
            self._fault = f"Slack: not delivered: {error}"
            self._fresh_until = self._clock() + AGAIN_S
            if self._fault != self._told:
                with contextlib.suppress(EdgeError):
                    self._tell(self._fault)
                    self._told = self._fault
            return
        self._told = ""
        self._fresh_until = self._clock() + FRESH_S

    def _found(self, reference: SecretKey) -> str:
        where = f"spec.notify.slack.secretRef: the Secret {reference.name} in {self._namespace}"
        try:
            data = self._access.get(SECRETS, self._namespace, reference.name).get("data") or {}
        except NotFound:
            raise EdgeError(f"{where} does not exist") from None
        if reference.key not in data:
            raise EdgeError(f"{where} has no key {reference.key}")
        return base64.b64decode(data[reference.key]).decode(errors="replace").strip()

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._slack is not None:
            self._slack.close()
        self._slack, self._address = None, ""
