"""Keeps a router's workers: starts, replaces, drains them, gives every table to each, and knows what each
serves.

A worker that dies is replaced after a delay that doubles from ``_DELAY_S`` to ``_LONGEST_DELAY_S`` and starts
small again once a worker has lived for a while. A rolling restart starts each new worker on the same sockets
before the old one drains. Each worker writes a journal of its own, ``<router>-<worker>``; a worker is called
``w<slot>``, or ``w<slot>b``, ``w<slot>c`` … while the journal of that name is still held by one that drains.

A table goes to disk first and then to the workers. A disk that fails or hangs delays it by ``_PERSIST_S`` at
most: a rollback must reach the traffic; the copy on disk is then tried again until it is there.
"""

import asyncio
import logging
import string
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from router.counted import Counted
from router.journal_file import is_free
from router.listeners import Listeners
from router.retention import delete_old
from router.settings import RouterSettings
from router.table import RouterState, RouteTable, WorkerState
from router.table_store import TableStore
from router.tallies import Tallies
from router.worker_process import Message, WorkerProcess

log = logging.getLogger("understudy.router.supervisor")

# (name of the worker, descriptor of its channel) → the program to run.
WorkerCommand = Callable[[str, int], Sequence[str]]

_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
_STEADY_S = 10.0
_PERSIST_S = 0.5
_CLEAN_CHECKS = 60
# A worker ends by itself when its time to drain is over; this much later it is killed.
_OWN_END_S = 2.0
# So long the end waits for a disk that has to take what was lost with workers that were killed.
_SETTLE_S = 3.0
_LANES = ("", *string.ascii_lowercase[1:])


class StartFailed(RuntimeError):
    """The workers did not come up."""


class Supervisor:
    """The workers of one router and the table they serve. All methods belong to one event loop."""

    def __init__(
        self,
        settings: RouterSettings,
        store: TableStore,
        command: WorkerCommand,
        environment: Mapping[str, str],
        listeners: Listeners,
    ) -> None:
        self.settings = settings
        self.store = store
        self.stopping = False
        self.restarts = 0
        self._counted = Counted()
        self._command = command
        self._environment = environment
        self._listeners = listeners
        self._workers: list[WorkerProcess] = []
        self._current: dict[int, WorkerProcess] = {}
        self._delays: dict[int, float] = {}
        self._starting: set[str] = set()
        self._tallies = Tallies(settings.journal_dir, settings.name, self._counted.told)
        self._deaths = 0
        self._last_death = ""
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rolling = asyncio.Lock()
        self._persisting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all workers and wait until each has said something. Raises StartFailed; nothing is left
        behind then.
        """
        self._spawn(self._check_every_second())
        if not self.store.persisted:
            self._persisting = self._spawn(self._persist())
        for slot in range(self.settings.workers):
            self._spawn(self._replace(slot, 0))
        try:
            async with asyncio.timeout(self.settings.start_s):
                while not self._complete():
                    if self._deaths > 3 * self.settings.workers:
                        raise StartFailed(f"the workers end as soon as they start: {self._last_death}")
                    await self._change()
        except TimeoutError:
            await self.stop(0)
            late = self._last_death or "none of them ended"
            raise StartFailed(f"not all workers were up after {self.settings.start_s:g} s: {late}") from None
        except StartFailed:
            await self.stop(0)
            raise

    async def put(self, table: RouteTable) -> None:
        """Hold ``table`` and give it to every worker. Raises TableConflict."""
        if self.store.check(table):
            self.store.table = table
            if self._persisting is None or self._persisting.done():
                self._persisting = self._spawn(self._persist())
            await asyncio.wait({self._persisting}, timeout=_PERSIST_S)
            log.info("table of generation %d: %s", table.generation, _summary(table))
        self.hear(always=True)

    def hear(self, *, always: bool = False) -> None:
        """Note that the controller was heard of, and tell the workers (now and then, or ``always`` with the
        table).
        """
        due = self.store.hear()
        if always and self.store.table is not None:
            self._tell_all(self._table_message(self.store.table))
        if due or always:
            self._tell_all({"type": "heard", "t": self.store.heard})

    def state(self) -> RouterState:
        """Which table every living worker serves; -1 for none, and for a worker that has not said yet."""
        return RouterState(
            router=self.settings.name,
            generation=-1 if self.store.table is None else self.store.table.generation,
            workers=tuple(worker.state or WorkerState(worker=worker.name, generation=-1) for worker in self._workers),
        )

    async def confirmed(self, generation: int, seconds: float) -> bool:
        """Wait until every worker serves at least ``generation``; False after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while self.state().confirmed < generation:
                    await self._change()
        except TimeoutError:
            return False
        return True

    def unready(self) -> str | None:
        """Why no traffic should be sent here; None where all is well."""
        if self.stopping:
            return "the router is shutting down"
        if self.store.table is None:
            return "no route table yet"
        if not any(w.state and w.state.generation >= self.store.table.generation for w in self._workers):
            return f"no worker serves generation {self.store.table.generation} yet"
        return None

    def counters(self) -> dict[str, float]:
        """What the workers count, summed; counters go on where workers were replaced."""
        return self._counted.with_living({worker.name: worker.counters for worker in self._workers})

    @property
    def pids(self) -> dict[str, int]:
        """The processes of the living workers, by name."""
        return {worker.name: worker.pid for worker in self._workers}

    async def roll(self) -> None:
        """Replace every worker by a fresh one, one at a time, the new one first. Stops at one that does not
        come up.
        """
        async with self._rolling:
            for slot in range(self.settings.workers):
                old = self._current.get(slot)
                if self.stopping or old is None:
                    continue
                new = await self._start_worker(slot)
                if new is None or not await self._up(new):
                    log.error("rolling restart stopped: the new worker of slot %d did not come up", slot)
                    if new is not None:
                        new.kill()
                    return
                current = self._current.get(slot)
                if current is not None and current is not old:
                    new.drain()  # the old one died meanwhile and was replaced already
                    continue
                self._current[slot] = new
                if current is old:
                    old.drain()
                await self._gone([old], self.settings.drain_s + _OWN_END_S)
            log.info("all workers were replaced: %s", self.pids)

    async def stop(self, drain_s: float) -> None:
        """Drain all workers; what has not ended soon after ``drain_s`` is killed. Nothing of ours runs afterwards."""
        self.stopping = True
        self._listeners.close()  # who comes now is refused, and does not wait for nobody
        for worker in self._workers:
            worker.drain()
        await self._gone(list(self._workers), drain_s + _OWN_END_S if drain_s else 0)
        for name in self._tallies.open:
            self._tallies.settle(name)
        await self._tallies.settled(_SETTLE_S)
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A worker whose start was under way when the others were asked to end.
        await self._gone(list(self._workers), 0)
        self._tallies.close()

    async def _gone(self, workers: list[WorkerProcess], seconds: float) -> None:
        """Wait for the end of workers, and kill those that take too long."""
        if not await self._until(lambda: not any(worker in self._workers for worker in workers), seconds):
            for worker in workers:
                if worker in self._workers:
                    log.warning("worker %s did not end within %g s and is killed", worker.name, seconds)
                    worker.kill()
            await self._until(lambda: not any(worker in self._workers for worker in workers), 5)

    async def _up(self, worker: WorkerProcess) -> bool:
        def settled() -> bool:
            return worker not in self._workers or self._serves_newest(worker)

        await self._until(settled, self.settings.start_s)
        return worker in self._workers and self._serves_newest(worker)

    def _serves_newest(self, worker: WorkerProcess) -> bool:
        table = self.store.table
        return worker.state is not None and (table is None or worker.state.generation >= table.generation)

    def _complete(self) -> bool:
        slots = range(self.settings.workers)
        return all(slot in self._current and self._serves_newest(self._current[slot]) for slot in slots)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._change()
        except TimeoutError:
            return condition()
        return True

    async def _change(self) -> None:
        """Wait until a worker says something or ends."""
        await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell_all(self, message: Message) -> None:
        for worker in self._workers:
            worker.send(message)

    @staticmethod
    def _table_message(table: RouteTable) -> Message:
        return {"type": "table", "table": table.model_dump(mode="json")}

    def _first_messages(self) -> list[Message]:
        first: list[Message] = []
        if self.store.table is not None:
            first.append(self._table_message(self.store.table))
        if self.store.heard:
            first.append({"type": "heard", "t": self.store.heard})
        return [*first, {"type": "poll"}]

    def _free_name(self, slot: int) -> str:
        taken = {worker.name for worker in self._workers} | self._starting | self._tallies.settling
        # First those whose last worker was killed: what it took along is told by the next one.
        names = sorted((f"w{slot}{lane}" for lane in _LANES), key=lambda name: name not in self._tallies.open)
        for name in names:
            if name not in taken and is_free(self.settings.journal_dir, f"{self.settings.name}-{name}"):
                return name
        raise OSError(f"all {len(_LANES)} journals of slot {slot} are held by workers that do not end")

    async def _start_worker(self, slot: int) -> WorkerProcess | None:
        name = ""
        try:
            name = self._free_name(slot)
            self._starting.add(name)
            worker = await WorkerProcess.start(
                name,
                slot,
                lambda channel: self._command(name, channel),
                first := self._first_messages(),
                self._note_change,
                self._environment,
                self._listeners.of(slot),
                self._tallies.of(name),
            )
        except OSError as error:
            log.error("no worker can be started for slot %d: %s", slot, error)
            self._last_death = str(error)
            return None
        finally:
            self._starting.discard(name)
        self._tallies.open.discard(name)
        self._workers.append(worker)
        # The table may have changed while the process was being started.
        for message in self._first_messages():
            if message not in first:
                worker.send(message)
        self._spawn(self._watch(worker))
        return worker

    async def _replace(self, slot: int, delay: float) -> None:
        """Start a worker for an empty slot, again and again until one starts."""
        await asyncio.sleep(delay)
        while not self.stopping and slot not in self._current:
            worker = await self._start_worker(slot)
            if worker is not None:
                if slot in self._current:  # filled by a rolling restart meanwhile
                    worker.drain()
                else:
                    self._current[slot] = worker
                return
            self._deaths += 1
            self._note_change()
            await asyncio.sleep(self._next_delay(slot))

    def _next_delay(self, slot: int) -> float:
        delay = self._delays.get(slot, 0.0)
        self._delays[slot] = min(max(2 * delay, _DELAY_S), _LONGEST_DELAY_S)
        return delay

    async def _watch(self, worker: WorkerProcess) -> None:
        """Wait for a worker's end; keep what it counted, and fill its slot again."""
        code = await worker.ended()
        self._workers.remove(worker)
        self._counted.ended(worker.name, worker.counters)
        if code:
            self._tallies.open.add(worker.name)
        if not worker.draining:
            self._deaths += 1
            self._last_death = f"worker {worker.name} ended with exit code {code}"
            log.error("%s", self._last_death)
        if self._current.get(worker.slot) is worker and not self.stopping:
            del self._current[worker.slot]
            self._listeners.drop(worker.slot)
            self.restarts += 1
            if asyncio.get_running_loop().time() - worker.started >= _STEADY_S:
                self._delays.pop(worker.slot, None)
            self._spawn(self._replace(worker.slot, self._next_delay(worker.slot)))
        elif code and not self.stopping:
            # Nobody takes its place, and would tell what was lost with it.
            self._tallies.settle(worker.name)
        self._note_change()

    async def _persist(self) -> None:
        """Bring the newest table to disk, again and again until it is there."""
        failing = False
        while not self.store.persisted:
            try:
                await asyncio.to_thread(self.store.persist)
            except OSError as error:
                if not failing:
                    log.error("the table is served but cannot be kept for the next start: %s", error)
                failing = True
                await asyncio.sleep(1)

    async def _check_every_second(self) -> None:
        checks = 0
        while True:
            await asyncio.sleep(1)
            checks += 1
            for worker in list(self._workers):
                worker.silent_checks += 1
                longest = self.settings.silence_s if worker.state else self.settings.start_s
                if worker.silent_checks > longest and not worker.draining:
                    log.error("worker %s said nothing for %g s and is killed", worker.name, longest)
                    worker.kill()
            if checks % _CLEAN_CHECKS == 1:
                try:
                    retention = self.settings.journal_retention_s
                    await asyncio.to_thread(delete_old, self.settings.journal_dir, retention)
                except OSError as error:
                    log.warning("old log files could not be deleted: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the supervisor failed", exc_info=task.exception())


def _summary(table: RouteTable) -> str:
    challenger = "none" if table.challenger is None else table.challenger.version
    return (
        f"{table.rollout}, champion {table.champion.version}, challenger {challenger}, "
        f"weight {table.weight_bp} bp, mirror {table.mirror_bp} bp"
    )
