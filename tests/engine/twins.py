"""The engine twice, on both kinds of tables: what one says the other has to say as well, at each step."""

from collections.abc import Callable, Sequence
from typing import Any

from controller.core.cells import Block, StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.engine import Engine
from controller.edges.engine.large import LargeTables
from controller.edges.engine.small import SmallTables


class Twins:
    """A large and a small engine in memory, given the same."""

    def __init__(self) -> None:
        self.large, self.small = LargeTables(None), SmallTables()
        self._both = Engine(tables=lambda: self.large), Engine(tables=lambda: self.small)

    def ingest(self, *rows: Sequence[Any]) -> None:
        """As ``Engine.ingest``."""
        for engine in self._both:
            engine.ingest(*rows)

    def count(self, **more: int) -> None:
        for engine in self._both:
            engine.count(**more)

    def adopt(self, query: StatisticsQuery) -> None:
        self._same(lambda engine: engine.adopt(query))

    def advance(self, query: StatisticsQuery, watermark: int) -> Statistics:
        said: Statistics = self._same(lambda engine: engine.advance(query, watermark))
        return said

    def blocks(self) -> list[Block]:
        found: list[Block] = self._same(Engine.blocks)
        return found

    def close(self) -> None:
        for engine in self._both:
            engine.close()

    def _same(self, asked: Callable[[Engine], Any]) -> Any:
        """What both answer, or the error that both raise."""
        large, small = (_answer(asked, engine) for engine in self._both)
        if isinstance(large, Exception):
            assert (type(small), str(small)) == (type(large), str(large))
            raise large
        assert small == large
        return large


def _answer(asked: Callable[[Engine], Any], engine: Engine) -> Any:
    try:
        return asked(engine)
    except ValueError as error:
        return error
