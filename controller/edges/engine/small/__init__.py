"""The tables of an engine in SQLite, for as many rows as a processor passes over in no time.

DuckDB plans every statement anew, in two milliseconds or so, which is all that a tick of a small rollout costs; SQLite
plans once and finds by indexes what a tick is about, so that it costs what is new and not what is known. What cells
hold is worked out here row by row, as the engine in memory does. Where a rollout has outgrown it, ``grow`` copies the
tables into DuckDB, which goes on from there.
"""

from controller.edges.engine.small.growth import grow, outgrown
from controller.edges.engine.small.tables import SmallTables

__all__ = ["SmallTables", "grow", "outgrown"]
