"""The peers, one module each: ``start(place) -> Running`` for every name it offers."""

from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where a peer runs and what it stands before. 5 % of the users are the challenger's."""

    directory: Path
    cores: str
    champion: str
    challenger: str
    workers: int = 1
