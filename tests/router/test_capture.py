"""What of the bodies reaches the disk, through the real worker: by the table's rules, and never a hidden field."""

from pathlib import Path

import pytest
import xxhash

from router.redaction import REDACTED
from tests.router.load import run
from tests.router.models import head_of
from tests.router.planes import serving, table
from tests.router.raw import ask, post

SECRET = "s3cr3t-value-42"


def posted(body: bytes, content_type: str | None, *lines: str, unit: str = "u") -> bytes:
    """A request whose body is called what the test says."""
    own = [] if content_type is None else [f"Content-Type: {content_type}"]
    head = [
        "POST /invocations HTTP/1.1",
        "Host: router",
        f"X-Unit: {unit}",
        f"Content-Length: {len(body)}",
        *own,
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def test_a_hidden_field_reaches_the_models_and_never_the_disk(tmp_path: Path) -> None:
    body = b'{"inputs": [{"age": 1, "user": {"password": "%b"}}]}' % SECRET.encode()
    with serving(tmp_path, mirror_bp=10_000, control_from_bp=5_000) as (plane, champion, challenger):
        ask(plane.port, post("u", body))
        one, two = plane.exposures(2)
        assert champion.requests[0].body == challenger.requests[0].body == body
        assert one.inputs == two.inputs == f'{{"inputs":[{{"age":1,"user":{{"password":"{REDACTED}"}}}}]}}'
        assert not one.cut
        assert plane.poll()["redacted_fields_total"] == 2
        assert plane.drain() == 0
    assert SECRET.encode() not in on_disk(tmp_path)


def test_a_large_body_that_is_cut_within_a_hidden_field_is_withheld(tmp_path: Path) -> None:
    body = b'{"email": "' + SECRET.encode() * 200 + b'"}'
    with serving(tmp_path, limits={"capture_bytes": 1_000}) as (plane, _, _):
        ask(plane.port, post("u", body))
        (exposure,) = plane.exposures(1)
        assert (exposure.inputs, exposure.cut) == (REDACTED, True)
        assert plane.poll()["withheld_bodies_total"] == 1
        assert plane.drain() == 0
    assert SECRET.encode() not in on_disk(tmp_path)


def test_a_body_of_which_little_would_be_kept_is_not_read(tmp_path: Path) -> None:
    body = b'{"inputs": [%b]}' % b",".join([b"[1]"] * 5_000)
    assert len(body) > 16 << 10
    limits = {"capture_bytes": 4_000, "challenger_timeout_ms": 20_000}  # later the answer would not be usable
    with serving(tmp_path, limits=limits) as (plane, champion, _):
        ask(plane.port, post("u", body))
        ask(plane.port, post("u", body[:12_000] + b"]}"))
        one, two = plane.exposures(2)
        assert champion.requests[0].body == body
        assert (one.inputs, one.answer, one.cut) == (REDACTED, REDACTED, True)  # there are as many predictions
        assert (one.status, one.usable) == (200, True)
        assert (two.inputs, two.cut) == (body[:4_000].decode(), True)
        counted = plane.poll()
        assert [counted[f"{name}_bodies_total"] for name in ("unread", "withheld")] == [2, 2]
        assert plane.drain() == 0


def test_values_that_come_before_their_names_in_a_large_body_are_withheld(tmp_path: Path) -> None:
    secret = SECRET.encode()
    values = b", ".join([b'"%b"' % secret] * 200)
    table_first = b'{"dataframe_split": {"data": [[%b]], "columns": [%b"email"]}}' % (values, b'"a", ' * 199)
    tensor = b'{"inputs": [{"data": [%b], "datatype": "BYTES", "name": "email", "shape": [200]}]}' % values
    harmless = b'{"inputs": [%b]}' % b", ".join([b"[1]"] * 500)
    with serving(tmp_path, limits={"capture_bytes": 1_000, "replay_bytes": 20_000}) as (plane, _, _):
        for body in (table_first, tensor, harmless):
            ask(plane.port, post("u", body))
        # Larger than what is held: its names are not known at all.
        ask(plane.port, post("u", b'{"data": [%b], "columns": ["email"]}' % b", ".join([values] * 8)))
        one, two, three, four = plane.exposures(4)
        assert [(e.inputs, e.cut) for e in (one, two, four)] == [(REDACTED, True)] * 3
        assert (three.inputs, three.cut) == (harmless[:1_000].decode(), True)
        assert plane.poll()["withheld_bodies_total"] == 3
        assert plane.drain() == 0
    assert secret not in on_disk(tmp_path)


def test_a_body_under_another_name_and_named_tensors_are_looked_through(tmp_path: Path) -> None:
    secret = SECRET.encode()
    with serving(tmp_path) as (plane, _, _):
        for content_type in (None, "application/x-www-form-urlencoded", "text/plain"):
            ask(plane.port, posted(b'{"inputs": [[1]], "email": "%b", "next": "/a?b=c"}' % secret, content_type))
        named = b'{"inputs":[{"name":"pass_word","shape":[1],"datatype":"BYTES","data":["%b"]}]}' % secret
        ask(plane.port, posted(named, "application/json"))
        ask(plane.port, posted(secret, "application/json", "Content-Encoding: gzip"))
        *three, tensor, packed = plane.exposures(5)
        for exposure in three:
            assert exposure.inputs == f'{{"inputs":[[1]],"email":"{REDACTED}","next":"/a?b=c"}}'
        assert tensor.inputs is not None
        assert f'"data":"{REDACTED}"' in tensor.inputs
        assert (packed.inputs, packed.cut) == (REDACTED, True)
        assert plane.drain() == 0
    assert secret not in on_disk(tmp_path)


@pytest.mark.parametrize("weight", [0, 10_000])
def test_what_says_that_it_is_packed_is_recorded_as_that_and_not_judged(tmp_path: Path, weight: int) -> None:
    """In either arm, also where its bytes could be taken for a text."""
    said = head_of(9).removesuffix(b"\r\n") + b"Connection: close\r\nContent-Encoding: %b\r\n\r\n[no json]"
    with serving(tmp_path, "raw", weight_bp=weight, control_from_bp=weight) as (plane, champion, challenger):
        for unit, coding in (("a", b"Zstd"), ("b", b"identity"), ("c", b"x" * 70)):
            champion.mode, champion.raw = "raw", said % coding
            challenger.raw = champion.raw
            ask(plane.port, posted(b"packed", "application/json", f"Content-Encoding: {coding.decode()}", unit=unit))
        seen = {e.unit: e for e in plane.exposures(3)}
        packed, plain, odd = (seen[unit] for unit in "abc")
        assert (packed.inputs, packed.inputs_coding) == (packed.answer, packed.answer_coding) == (REDACTED, "zstd")
        assert (packed.usable, packed.unjudged, packed.answer_cut) == (True, True, True)
        assert (plain.inputs, plain.inputs_coding) == ("packed", None)
        assert (plain.answer, plain.answer_coding) == ("[no json]", None)
        assert (plain.usable, plain.unjudged, plain.answer_cut) == (False, False, False)
        assert odd.inputs_coding == odd.answer_coding == "x" * 64


def test_a_hidden_field_of_an_answer_reaches_the_client_and_never_the_disk(tmp_path: Path) -> None:
    said = b'{"predictions": [0.25], "user": {"e_mail": "%b"}}' % SECRET.encode()
    with serving(tmp_path, "raw", mirror_bp=10_000, control_from_bp=5_000) as (plane, champion, challenger):
        champion.mode, champion.raw = "raw", head_of(len(said)) + said
        letter = b"email: " + SECRET.encode()
        challenger.raw = head_of(len(letter), kind=b"text/plain") + letter
        assert ask(plane.port, post("u", b"{}")).body == said
        shown, mirrored = sorted(plane.exposures(2), key=lambda exposure: exposure.mirror)
        assert (shown.answer, shown.cut) == (f'{{"predictions":[0.25],"user":{{"e_mail":"{REDACTED}"}}}}', False)
        # No scores are missed in what was withheld: it counts as cut.
        assert (mirrored.answer, mirrored.cut) == (REDACTED, True)
        assert plane.drain() == 0
    assert SECRET.encode() not in on_disk(tmp_path)


@pytest.mark.parametrize("shares", [{"weight_bp": 10_000}, {"mirror_bp": 10_000, "control_from_bp": 5_000}])
def test_of_an_answer_that_ended_before_its_names_came_nothing_is_written(
    tmp_path: Path, shares: dict[str, int]
) -> None:
    part = b'{"data": [["%b"]], "columns": ["em' % SECRET.encode()
    with serving(tmp_path, "raw", **shares) as (plane, champion, challenger):
        for model in (champion, challenger):
            model.mode, model.raw = "raw", head_of(len(part) + 9) + part
        assert ask(plane.port, post("u", b"{}")).status == 502
        exposures = plane.exposures(2 if "mirror_bp" in shares else 1)
        assert {(e.answer, e.cut) for e in exposures} == {(REDACTED, True)}
        assert plane.drain() == 0
    assert SECRET.encode() not in on_disk(tmp_path)


def test_another_table_hides_other_fields_from_its_first_request_on(tmp_path: Path) -> None:
    body = b'{"inputs": [1], "email": "a", "tail": "b"}'
    with serving(tmp_path, capture={"redact": ["tail"], "redact_defaults": False}) as (plane, champion, challenger):
        ask(plane.port, post("u", body))
        plane.put(table(2, champion.address, challenger.address))
        ask(plane.port, post("u", body))
        one, two = plane.exposures(2)
        assert one.inputs == f'{{"inputs":[1],"email":"a","tail":"{REDACTED}"}}'
        assert two.inputs == f'{{"inputs":[1],"email":"{REDACTED}","tail":"b"}}'


def test_bodies_are_drawn_by_the_request_alone_in_the_share_that_the_table_says(tmp_path: Path) -> None:
    rules = {"capture": {"inputs_bp": 2_500, "answers_bp": 5_000}, "mirror_bp": 10_000, "control_from_bp": 5_000}
    number = 400
    with serving(tmp_path, mirrors=100, **rules) as (plane, _, _):
        run(plane.port, lambda n: post(f"u{n}", b"{}", f"X-Request-Id: r{n}"), number)
        found = plane.exposures(number)
        mirrors = int(plane.poll()["mirrored_total"])
        found = plane.exposures(number + mirrors)
        for exposure in found:
            place = xxhash.xxh64_intdigest(exposure.request_id.encode(), seed=1) % 10_000
            assert (exposure.inputs is not None) == (place < 2_500)
            assert (exposure.answer is not None) == (place < 5_000)
            assert exposure.cut == (place >= 5_000)
        kept = sum(e.inputs is not None for e in found if not e.mirror)
        assert 60 < kept < 140


@pytest.mark.parametrize("failed", [True, False])
def test_a_failure_is_kept_whole_where_the_table_says_so(tmp_path: Path, failed: bool) -> None:
    rules = {"capture": {"inputs_bp": 0, "answers_bp": 0, "failed": failed}, "weight_bp": 10_000}
    with serving(tmp_path, "nan", **rules) as (plane, _, challenger):
        ask(plane.port, post("u", b'{"inputs": [7]}'))
        challenger.mode = "good"
        ask(plane.port, post("u", b'{"inputs": [7]}'))
        bad, good = plane.exposures(2)
        if failed:
            assert (bad.inputs, bad.answer, bad.cut) == ('{"inputs": [7]}', '{"predictions": [NaN]}', False)
        else:
            assert (bad.inputs, bad.answer) == (None, None)
        assert (good.inputs, good.answer, good.usable) == (None, None, True)


def test_what_was_cut_of_a_request_does_not_excuse_its_answer(tmp_path: Path) -> None:
    """An answer that is on disk as it was given says what it has no score for."""
    rules = {"limits": {"capture_bytes": 1_000}, "mirror_bp": 10_000}
    with serving(tmp_path, **rules) as (plane, champion, challenger):
        champion.mode = challenger.mode = "plain"
        ask(plane.port, post("large", b"x" * 2_000))
        ask(plane.port, post("no text", b"\xff\xfe"))
        plane.exposures(4)
        champion.mode = challenger.mode = "large"
        champion.size = challenger.size = 2_000
        ask(plane.port, post("small"))
        said = {(e.unit, e.mirror): (e.cut, e.answer_cut) for e in plane.exposures(6)}
        assert said == {
            (unit, mirror): (True, unit == "small")
            for unit in ("large", "no text", "small")
            for mirror in (False, True)
        }


def test_an_answer_that_was_not_kept_says_nothing_of_its_scores(tmp_path: Path) -> None:
    with serving(tmp_path, capture={"answers_bp": 0}) as (plane, _, _):
        ask(plane.port, post("u"))
        (exposure,) = plane.exposures(1)
        assert (exposure.answer, exposure.cut, exposure.answer_cut) == (None, True, True)
