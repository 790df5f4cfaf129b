"""TLS of the control API, for both of its ends: certificates from PEM files, tried before anybody relies on them.

A file that is missing, holds nothing of the kind, belongs to another key or is out of date is refused with its
setting and the reason. Whether a certificate is good today is asked of OpenSSL itself, by a handshake in memory.
"""

import ssl
import time
from pathlib import Path
from typing import NamedTuple, NoReturn


class BadCertificate(ValueError):
    """A file that cannot be used; the text begins with its setting as a flag."""

    def __init__(self, setting: str, why: str) -> None:
        super().__init__(f"--{setting.replace('_', '-')} {why}")


class Files(NamedTuple):
    """What one end is told, in PEM: its certificate (with what leads to its authority), the key, and the
    authorities that the other end's certificate has to come from. ``authority`` is the setting of ``ca``.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    authority: str = "control_ca"

    def named(self) -> dict[str, Path]:
        """The files that there are, by setting."""
        found = {"control_cert": self.cert, "control_key": self.key, self.authority: self.ca}
        return {setting: path for setting, path in found.items() if path is not None}


class Certificates:
    """One end's certificates in a ``context`` that stays the same when they are renewed.

    A server (``server=True``) has a certificate; with authorities it asks clients for theirs, and serves those
    that have none as well: what they may see is not decided here. A client trusts the authorities of the system
    where it is told of none, and may have no certificate. Raises BadCertificate.
    """

    def __init__(self, files: Files, *, server: bool) -> None:
        self._files = files
        self._server = server
        if (files.cert is None) != (files.key is None):
            have, lack = ("cert", "key") if files.key is None else ("key", "cert")
            raise BadCertificate(f"control_{have}", f"needs --control-{lack} as well")
        if server and files.cert is None:
            raise BadCertificate(files.authority, "needs --control-cert and --control-key as well")
        self._seen = self._times()
        self.context = self._loaded()

    def renew(self) -> bool:
        """Take the files again where one of them has changed; whether that was so. New connections use them.

        Raises BadCertificate where they cannot be used; those that were taken before stay in use then. An
        authority that is no longer named is trusted until the process ends.
        """
        seen = self._times()
        if seen == self._seen:
            return False
        self._seen = seen
        self._loaded()
        files = self._files
        try:
            if files.cert is not None:
                self.context.load_cert_chain(files.cert, files.key, _no_password)
            if files.ca is not None:
                self.context.load_verify_locations(files.ca)
        except OSError as error:  # they change again in this very moment: another look is needed
            self._seen = []
            raise BadCertificate(next(iter(files.named())), f"changes while it is read ({error})") from None
        return True

    def _times(self) -> list[int]:
        found = []
        for path in self._files.named().values():
            try:
                found.append(path.stat().st_mtime_ns)
            except OSError:
                found.append(0)
        return found

    def _loaded(self) -> ssl.SSLContext:
        files = self._files
        for setting, path in files.named().items():
            try:
                path.read_bytes()
            except OSError as error:
                raise BadCertificate(setting, f"{path}: {error.strerror}") from None
        if self._server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.verify_mode = ssl.CERT_NONE if files.ca is None else ssl.CERT_OPTIONAL
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if files.ca is not None:
            _load_authorities(context, files.ca, files.authority)
        elif not self._server:
            context.load_default_certs()
        if files.cert is not None and files.key is not None:
            _load_own(context, files.cert, files.key)
            _try(files.cert, files.key, server=self._server)
        return context


def _load_authorities(context: ssl.SSLContext, path: Path, setting: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise BadCertificate(setting, f"{path}: holds no certificate in PEM") from None
    ends = [ssl.cert_time_to_seconds(str(authority["notAfter"])) for authority in context.get_ca_certs()]
    if ends and max(ends) < time.time():
        raise BadCertificate(setting, f"{path}: the certificate has expired")


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except ssl.SSLError:
        raise BadCertificate("control_cert", f"{cert}: holds no certificate in PEM") from None
    try:
        context.load_cert_chain(cert, key, _no_password)
    except _Locked:
        raise BadCertificate("control_key", f"{key}: is locked by a password; give it without one") from None
    except ssl.SSLError as error:
        reason = error.reason or "PEM"
        if "MISMATCH" in reason:
            raise BadCertificate("control_key", f"{key}: is not the key of {cert}") from None
        if "PEM" in reason:
            raise BadCertificate("control_key", f"{key}: holds no private key in PEM") from None
        raise BadCertificate("control_cert", f"{cert}: cannot be used ({reason})") from None


class _Locked(Exception):
    pass


def _no_password() -> NoReturn:
    raise _Locked


def _try(cert: Path, key: Path, *, server: bool) -> None:
    """Show the certificate to an other end that trusts it already, which then looks only at the rest of it."""
    ends = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]
    looking = ends[not server]
    for end in ends:
        end.check_hostname = False
        end.verify_mode = ssl.CERT_NONE
        end.load_cert_chain(cert, key)
    looking.verify_mode = ssl.CERT_REQUIRED
    looking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    looking.load_verify_locations(cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [ends[0].wrap_bio(back, there), ends[1].wrap_bio(there, back, server_side=True)]
    try:
        while waiting:
            waiting = [end for end in waiting if not _shaken(end)]
    except ssl.SSLCertVerificationError as error:
        raise BadCertificate("control_cert", f"{cert}: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise BadCertificate("control_cert", f"{cert}: cannot be used ({error.reason})") from None


def _shaken(end: ssl.SSLObject) -> bool:
    """Go on with a handshake; whether it is over."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
