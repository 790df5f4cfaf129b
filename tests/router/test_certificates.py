"""Certificate files: what can be used, what cannot and why, and what happens when they are renewed."""

import os
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from router.certificates import BadCertificate, Certificates, Files
from tests.router.authorities import BOTH, CLIENT, SERVER, Authority, Signed


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Signed:
    return authority.sign("good", BOTH)


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"cert": Path("absent.crt")}, "--control-cert absent.crt: No such file or directory"),
        ({"key": Path("absent.key")}, "--control-key absent.key: No such file or directory"),
        ({"ca": Path("absent.pem")}, "--control-ca absent.pem: No such file or directory"),
        ({"cert": None}, "--control-key needs --control-cert as well"),
        ({"key": None}, "--control-cert needs --control-key as well"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_its_setting(
    good: Signed, server: bool, other: dict[str, Path | None], says: str
) -> None:
    with pytest.raises(BadCertificate, match=f"^{says}$"):
        Certificates(Files(good.cert, good.key)._replace(**other), server=server)


def test_a_file_of_another_kind_is_refused(authority: Authority, good: Signed, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    for files, says in [
        (Files(text, good.key), f"--control-cert {text}: holds no certificate in PEM"),
        (Files(good.key, good.key), f"--control-cert {good.key}: holds no certificate in PEM"),
        (Files(good.cert, text), f"--control-key {text}: holds no private key in PEM"),
        (Files(good.cert, good.cert), f"--control-key {good.cert}: holds no private key in PEM"),
        (Files(good.cert, good.key, text), f"--control-ca {text}: holds no certificate in PEM"),
    ]:
        with pytest.raises(BadCertificate) as refused:
            Certificates(files, server=False)
        assert str(refused.value) == says


def test_a_key_of_another_certificate_is_refused(authority: Authority, good: Signed) -> None:
    other = authority.sign("other", BOTH)
    with pytest.raises(BadCertificate, match=f"--control-key {other.key}: is not the key of {good.cert}"):
        Certificates(Files(good.cert, other.key), server=True)


def test_a_key_that_is_too_weak_is_refused(authority: Authority) -> None:
    weak = authority.sign("weak", BOTH, key=rsa.generate_private_key(65_537, 1_024))
    with pytest.raises(BadCertificate, match=rf"--control-cert {weak.cert}: cannot be used \(\w*KEY_TOO_SMALL\)"):
        Certificates(Files(*weak), server=True)


def test_a_locked_key_is_refused_without_asking_anybody(authority: Authority) -> None:
    locked = authority.sign("locked", BOTH, password=b"secret")
    with pytest.raises(BadCertificate, match=f"--control-key {locked.key}: is locked by a password"):
        Certificates(Files(*locked), server=True)


@pytest.mark.parametrize("server", [True, False])
def test_a_certificate_that_is_not_good_today_is_refused(authority: Authority, server: bool) -> None:
    old = authority.sign("old", BOTH, begins=-9, ends=-1)
    early = authority.sign("early", BOTH, begins=1, ends=2)
    with pytest.raises(BadCertificate, match=f"--control-cert {old.cert}: certificate has expired"):
        Certificates(Files(*old), server=server)
    with pytest.raises(BadCertificate, match=f"--control-cert {early.cert}: certificate is not yet valid"):
        Certificates(Files(*early), server=server)


@pytest.mark.parametrize(("server", "usage"), [(True, CLIENT), (False, SERVER)])
def test_a_certificate_for_the_other_end_is_refused(
    authority: Authority, server: bool, usage: x509.ObjectIdentifier
) -> None:
    wrong = authority.sign(f"wrong-{server}", (usage,))
    with pytest.raises(BadCertificate, match=f"--control-cert {wrong.cert}: un"):
        Certificates(Files(*wrong), server=server)
    Certificates(Files(*wrong), server=not server)


def test_an_authority_that_has_expired_is_refused_unless_another_stands_beside_it(
    authority: Authority, good: Signed, tmp_path: Path
) -> None:
    old = Authority(tmp_path / "old", days=-1)
    with pytest.raises(BadCertificate, match=f"--client-ca {old.cert}: the certificate has expired"):
        Certificates(Files(*good, old.cert, "client_ca"), server=True)
    both = tmp_path / "both"
    both.write_bytes(old.cert.read_bytes() + authority.cert.read_bytes())
    Certificates(Files(*good, both), server=True)


def test_a_server_with_authorities_needs_a_certificate(authority: Authority) -> None:
    with pytest.raises(BadCertificate, match=r"^--client-ca needs --control-cert and --control-key as well$"):
        Certificates(Files(ca=authority.cert, authority="client_ca"), server=True)


def test_a_client_needs_no_certificate_and_then_trusts_the_systems_authorities() -> None:
    context = Certificates(Files(), server=False).context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_renewed_files_are_taken_and_bad_ones_are_not(authority: Authority, tmp_path: Path) -> None:
    files = Files(tmp_path / "crt", tmp_path / "key")

    def put(signed: Signed, moment: int) -> None:
        for source, target in zip(signed, files[:2], strict=True):
            shutil.copy(source, target)
            os.utime(target, (moment, moment))

    put(authority.sign("first", BOTH), 1)
    held = Certificates(files, server=True)
    assert not held.renew()
    put(authority.sign("second", BOTH), 2)
    assert held.renew()
    assert shown(held.context, authority) == "second"
    put(authority.sign("third", BOTH, begins=-9, ends=-1), 3)
    with pytest.raises(BadCertificate, match="has expired"):
        held.renew()
    assert shown(held.context, authority) == "second"
    assert not held.renew()


def shown(server: ssl.SSLContext, authority: Authority) -> str:
    """The name in the certificate that a client is shown."""
    client = ssl.create_default_context(cafile=authority.cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname="localhost")
    theirs = server.wrap_bio(there, back, server_side=True)
    for end in (ours, theirs, ours, theirs):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = ours.getpeercert()
    assert found is not None
    return dict(pair for part in found["subject"] for pair in part)["commonName"]  # type: ignore[misc]
