"""What an engine needs of the place where its rows lie: ``large`` has them in DuckDB, ``small`` in SQLite."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from controller.core.cells import BaselineSums, Block, MetricPlan
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.settling import OutcomeTally, Settling, Tally
from controller.edges.engine.span import Span


class Texts(Protocol):
    """Texts by kind and key: what the engine remembers beside its rows. What is ``put`` is there after ``write``."""

    def taken(self, kind: str) -> dict[str, str]:
        """The texts of ``kind`` that were there at first, by key; they are held no longer."""

    def put(self, kind: str, key: str, body: str) -> None: ...

    def forget(self, *kinds: str) -> None:
        """Nothing of ``kinds`` is kept."""

    def write(self) -> None:
        """Add what was put."""


class Limits(NamedTuple):
    """Up to where rows are forgotten (µs): those before ``before``; requests before ``hourly`` where there are too many
    of them. ``names``: outcomes that some metric looks at."""

    before: int
    hourly: int
    names: Sequence[str]


class Tables(Protocol):
    """Rows of one rollout in one file that this process alone has. ``errors``: what its methods raise where the file
    fails. Not for use by several threads."""

    @property
    def errors(self) -> tuple[type[Exception], ...]: ...

    @property
    def size_mb(self) -> float:
        """What it holds of memory while it is open and has little in it, about."""

    @property
    def settle_after(self) -> int:
        """Rows after which what is staged is settled, so that a long backlog is not held in one piece."""

    @property
    def kept(self) -> Texts: ...

    def load(self) -> tuple[int, int]:
        """Take what is committed: how many rows are staged, and how many outcomes pending."""

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def roll_back(self) -> None:
        """Undo what was done since ``begin``. One of ``errors`` where the file has to be opened again."""

    def close(self) -> None: ...

    def begin_attempt(self, attempt: int) -> int:
        """Forget the attempts before ``attempt``, but not whose requests they had; how many outcomes are pending."""

    def admit(self, exposures: Sequence[ExposureRow], outcomes: Sequence[OutcomeRow]) -> None:
        """Stage rows."""

    def admit_foreign(self, exposures: Sequence[ExposureRow]) -> None:
        """Remember whose outcomes belong to another attempt."""

    def admit_samples(self, rows: Sequence[SampleRow], attempt: int, settled: int) -> None:
        """Keep the samples of ``attempt`` that do not lie before its watermark ``settled`` (µs), and all of later
        ones."""

    def settle_exposures(self, step: Settling) -> Tally:
        """Make requests of staged exposures before the watermark, and enter their units into epochs."""

    def settle_outcomes(self, step: Settling, metrics: Iterable[MetricPlan], arrived: int) -> OutcomeTally:
        """Move staged outcomes before the watermark on, once each, and match what waits with its request; ``arrived``:
        how many requests this step has."""

    def baseline(self, span: Span, sums: BaselineSums) -> BaselineSums:
        """``sums`` with the champion's of ``span``: of mirrors alone where the plan is frozen."""

    def weighted(self, span: Span) -> list[Block]:
        """All blocks of weighted epochs that have a row, in the order (segment, block, epoch); of what looks at servers
        those of mirrors as well."""

    def paired(self, span: Span) -> list[Block]:
        """All blocks of mirror epochs that have a pair, in the order (segment, block, epoch)."""

    def judge(self, blocks: Sequence[tuple[object, ...]]) -> None:
        """Keep blocks: metric, segment, epoch, number, whether of a pair, its end (µs), its body."""

    def bodies(self) -> list[str]:
        """Those of the blocks that are kept, by (metric, segment, …)."""

    def unknown(self, before: int, names: Sequence[str]) -> int:
        """Outcomes of ``names`` that came in before ``before`` and still wait for their request."""

    def prune(self, limits: Limits) -> int:
        """Forget rows; how many outcomes still waited for their request."""

    def sum_up(self, summed: int) -> int:
        """One row per unit again where additions have piled up since there were ``summed``: how many there are."""
