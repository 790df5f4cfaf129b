"""Whatever is in the file, reading it ends soon, with a rollout or with lines that say what is wrong and where."""

import random
import time

import pytest

from controller.spec import ModelRollout
from controller.specfile import parse
from controller.specfile.document import LIMIT_BYTES, LIMIT_VALUES, read
from tests.spec.documents import TEXT, refusals

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.yaml: is empty; a mapping with apiVersion, kind, metadata and spec is needed"),
        (b"# nothing\n", "a.yaml: is empty"),
        (b"- 1\n- 2\n", "a.yaml: a mapping with apiVersion, kind, metadata and spec is needed, it holds a list"),
        (b"rollout", "a.yaml: a mapping with apiVersion, kind, metadata and spec is needed, it holds 'rollout'"),
        (TEXT.encode() + b"---\n" + TEXT.encode(), "a.yaml: line 12: another document begins"),
        (b"spec: " + b"[" * 5000, "a.yaml: line 1: is nested deeper than 32 levels"),
        (b"spec:\n" + b"".join(b" " * i + b"a:\n" for i in range(1, 400)), "a.yaml: line 34: is nested deeper than"),
        (BOMB.encode(), f"a.yaml: line 5: holds more than {LIMIT_VALUES} values, aliases included"),
        (b"a: &a [*a]\n", "a.yaml: line 1: nothing complete is called &a before here"),
        (b"a: *b\n", "a.yaml: line 1: nothing complete is called &b before here"),
        (b"spec:\n\tmodel: a\n", "a.yaml: line 2, column 1: a tab; YAML is indented with spaces"),
        (b"a: \x00\n", "a.yaml: line 1: the control character U+0000 is not allowed"),
        (b"a: b\nc: \x1b[31m\n", "a.yaml: line 2: the control character U+001B is not allowed"),
        (b"a: b\nc: \xff\xfe\n", "a.yaml: line 2: is not UTF-8 (byte 0xff)"),
        (TEXT.encode("utf-16"), "a.yaml: line 1: is not UTF-8"),
        (b"a: !!python/object:os.system x\n", "a.yaml: line 1: the tag tag:yaml.org,2002:python/object:os.system is"),
        (b"? [a]\n: b\n", "a.yaml: line 1: a key must be a text"),
        (b"<<: 3\n", "a.yaml: rollout: << takes a mapping"),
        (b"a: [1, 2\n", "a.yaml: line 2, column 1: not YAML: "),
        (b'a: "\\ud800"\n', "a: holds half a character"),
        (b"a: " + b"9" * 5000 + b"\n", "a: a number of 5000 characters; allowed are 64"),
        (b"a: 1e999\n", "a: 1e999 is too large a number"),
        (b"x" * (10 << 20), f"a.yaml: is larger than {LIMIT_BYTES // 1024} KiB"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_its_line(content: bytes, said: str) -> None:
    began = time.process_time()
    (line,) = refusals(content)
    assert line.startswith(said)
    assert time.process_time() - began < 5


def test_a_key_that_stands_twice_is_named_with_both_lines() -> None:
    decision = "decision:\n    minUnits: 2000\n    minUnits: 3\n    tick: 5s"
    twice = TEXT.replace("decision: {minUnits: 2000, maxDuration: 14d}", decision) + "kind: ModelRollout\n"
    assert refusals(twice) == [
        "spec.decision.minUnits: stands twice, in line 12 and in line 13",
        "kind: stands twice, in line 2 and in line 15",
    ]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    assert parse(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()) == parse(TEXT)


def test_anchors_and_merge_keys_work_and_what_is_written_wins() -> None:
    text = TEXT.replace("{weight: 5, hold: 1h}", "&five {weight: 5, hold: 1h}")
    text = text.replace("{weight: 50, hold: 1d}", "{<<: *five, weight: 50}")
    assert [(s.percent, s.hold) for s in parse(text).spec.steps[1:]] == [(5, 3_600_000_000), (50, 3_600_000_000)]


@pytest.mark.parametrize(
    "text",
    ["no", "on", "1:30", "12:30:45", "2013-99-99", "2013-01-01", "0777", "0x10", "0o17", "1_000", ".inf", ".nan"],
)
def test_what_yaml_reads_in_more_than_one_way_is_a_text(text: str) -> None:
    assert read(f"a: {text}", "a") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
    ],
)
def test_a_value_that_means_one_thing_is_that(text: str, value: object) -> None:
    found = read(f"a: {text}", "a")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_nothing_that_is_written_into_a_file_ends_in_a_trace() -> None:
    rng = random.Random(5)
    pieces = [
        "\t", "\x00", "&a ", "*a", "<<: ", "- ", ": ", "{", "}", "[", "]", "'", '"', "|\n", ">", "!!x ", "%", "@",
        "---\n", "...\n", "\ufeff", "\u2028", "9" * 400, "null", ".nan", "-1", "\\ud800", "?", "#", "\r", " ",
    ]  # fmt: skip
    accepted = 0
    for _ in range(600):
        text = TEXT
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.choice([0, 1, 3]) :]
        accepted += not refusals(text)
    assert 0 < accepted < 400


def test_a_rollout_written_as_json_is_the_same_rollout() -> None:
    again = parse(parse(TEXT).model_dump_json(by_alias=True, exclude_none=True))
    assert isinstance(again, ModelRollout)
    assert again == parse(TEXT)
