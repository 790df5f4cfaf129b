"""A key is worked on by one thread at a time, when it is due, and no addition is lost."""

import random
import threading
from collections import Counter

import pytest

from controller.operator.queue import SLOW_FOR_S, SLOW_S, SLOW_TURN, Queue, Taken


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_one_that_is_due_longest_comes_first_and_nothing_before_its_time() -> None:
    clock = Clock()
    queue = Queue(clock=clock)
    queue.add("late", 5.0)
    queue.add("soon", 2.0)
    assert queue.take(0.0) is None
    clock.now = 6.0
    assert [queue.take(0.0), queue.take(0.0), queue.take(0.0)] == [Taken("soon", 2.0), Taken("late", 5.0), None]


def test_the_earlier_of_two_times_holds() -> None:
    clock = Clock()
    queue = Queue(clock=clock)
    for due in (5.0, 2.0, 9.0):
        queue.add("key", due)
    clock.now = 10.0
    assert queue.take(0.0) == Taken("key", 2.0)
    queue.give_back("key", None)
    assert queue.take(0.0) is None


def test_what_is_added_while_it_is_in_hand_comes_again_after_it() -> None:
    clock = Clock()
    queue = Queue(clock=clock)
    queue.add("key")
    assert queue.take(0.0) is not None
    queue.add("key")
    assert queue.take(0.0) is None
    queue.give_back("key", 100.0)
    assert queue.take(0.0) == Taken("key", 0.0)
    queue.give_back("key", 100.0)
    assert queue.take(0.0) is None


def test_a_crowd_of_one_namespace_delays_another_one_by_a_turn() -> None:
    """However many of it are due, for however long, and come again at once."""
    clock = Clock()
    queue = Queue(clock=clock)
    for number in range(3000):
        queue.add(f"noisy/{number}", -number)
    waited = Counter[int]()
    for clock.now in (10.0, 20.0, 30.0):
        queue.add("quiet/late", clock.now)
        queue.add("calm/late", clock.now)
        seen: list[str] = []
        while not {"quiet/late", "calm/late"} <= set(seen):
            key = taken(queue)
            assert key is not None
            queue.give_back(key, clock.now if key.startswith("noisy/") else None)
            seen.append(key)
        waited[len(seen)] += 1
    assert max(waited) <= 3 * SLOW_TURN  # nobody knows of a new one yet whether it is slow


@pytest.mark.parametrize("seed", range(5))
def test_namespaces_take_turns_each_in_the_order_of_its_own_and_nothing_is_lost(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    queue, due = Queue(clock=clock), dict[str, float]()
    keys = [f"n{rng.randrange(6)}/{number}" for number in range(300)]
    for _ in range(900):
        key, time = rng.choice(keys), rng.uniform(0, 100)
        queue.add(key, time)
        due[key] = min(time, due.get(key, time))
    clock.now = 50.0
    seen = list(iter(lambda: queue.take(0.0), None))
    assert {t.key: t.due for t in seen} == {key: time for key, time in due.items() if time <= 50.0}
    places = [t.key.partition("/")[0] for t in seen]
    for place in set(places):
        own = [t.due for t in seen if t.key.startswith(f"{place}/")]
        assert own == sorted(own)
    left = Counter(places)
    for turn, place in enumerate(places):
        others = {each for each, count in left.items() if count and each != place}
        assert others <= set(places[turn + 1 : turn + 6]), "a namespace was passed over"
        left[place] -= 1


def test_those_that_wait_come_after_all_others_that_are_due() -> None:
    waiting = {"w1", "w2"}
    queue = Queue(clock=Clock(), waits=waiting.__contains__)
    for key, due in (("w1", -9.0), ("w2", -8.0), ("late", 9.0), ("b", -1.0), ("a", -2.0)):
        queue.add(key, due)
    assert [taken(queue) for _ in range(5)] == ["a", "b", "w1", "w2", None]


def test_one_that_has_waited_and_need_not_any_more_is_among_the_others() -> None:
    waiting = {"w1", "w2"}
    queue = Queue(clock=Clock(), waits=waiting.__contains__)
    for key, due in (("w1", -9.0), ("w2", -8.0), ("a", -7.0)):
        queue.add(key, due)
    waiting.discard("w2")
    queue.add("w2", 0.0)
    assert [taken(queue) for _ in range(4)] == ["w2", "a", "w1", None]
    assert len(queue) == 3


def test_those_that_wait_are_not_in_all_hands_at_once() -> None:
    """One of them may take as long as a call's deadline."""
    queue = Queue(clock=Clock(), waits=lambda key: key != "at work", aside=2)
    for key in ("a", "b", "c"):
        queue.add(key, 0.0)
    assert [taken(queue) for _ in range(3)] == ["a", "b", None]
    queue.add("at work", 0.0)
    assert taken(queue) == "at work"
    queue.give_back("a", None)
    assert [taken(queue) for _ in range(2)] == ["c", None]


def test_those_that_let_us_wait_are_not_in_all_hands_however_many_they_are() -> None:
    """Somebody's routers that accept calls and answer none hold up each look for seconds."""
    clock = Clock()
    queue = Queue(clock=clock, slow=2)
    queue.add("a/prompt")
    assert taken(queue) == "a/prompt"
    queue.give_back("a/prompt", 0.0)
    for name in ("b/1", "b/2", "b/3", "b/4"):  # nobody knows of them yet that they are slow
        queue.add(name, -1.0)
    assert {taken(queue) for _ in range(4)} == {"a/prompt", "b/1", "b/2", None}
    queue.give_back("a/prompt", 0.0)
    clock.now += SLOW_S
    queue.give_back("b/1", 0.0)
    queue.give_back("b/2", 0.0)
    assert {taken(queue) for _ in range(4)} == {"a/prompt", "b/3", "b/4", None}


def test_one_that_took_long_is_taken_for_slow_for_a_while_though_it_is_prompt_now() -> None:
    clock = Clock()
    queue = Queue(clock=clock, slow=1)
    queue.add("new")
    assert taken(queue) == "new"  # the only hand there is for slow ones
    queue.add("key")

    def taken_within(seconds: float) -> bool:
        """Whether it was taken as a prompt one; then it is worked on for so long, else as a slow one."""
        found = taken(queue)
        if found is None:
            queue.give_back("new", None)
            assert taken(queue) == "key"
        clock.now += seconds
        queue.give_back("key", clock.now + 1)
        if found is None:
            queue.add("new")
            assert taken(queue) == "new"
        queue.add("key")
        return found is not None

    assert not taken_within(SLOW_S / 2)
    assert taken_within(SLOW_S / 2)
    assert taken_within(SLOW_S)
    assert not taken_within(0.0)
    clock.now += SLOW_FOR_S
    assert not taken_within(0.0)  # it was put among the slow ones when it was one
    assert taken_within(0.0)


def test_slow_ones_get_a_turn_however_much_else_is_due() -> None:
    queue = Queue(clock=Clock())
    for number in range(100):
        queue.add(f"k{number}", 0.0)
    for name in [str(taken(queue)) for _ in range(100)]:
        queue.give_back(name, 0.0)
    queue.add("slow", 0.0)
    assert "slow" in [taken(queue) for _ in range(2 * SLOW_TURN)]


def test_those_that_wait_get_a_turn_however_much_else_is_due() -> None:
    queue = Queue(clock=Clock(), waits=lambda key: key == "w")
    for number in range(100):
        queue.add(f"k{number}", 0.0)
    queue.add("w", 0.0)
    assert "w" in [taken(queue) for _ in range(40)]


def taken(queue: Queue) -> str | None:
    found = queue.take(0.0)
    return found and found.key


def test_beyond_the_bound_a_new_key_is_refused_and_counted() -> None:
    queue = Queue(limit=2)
    assert [queue.add(key) for key in ("a", "b", "c", "a")] == [True, True, False, True]
    assert (queue.dropped, len(queue)) == (1, 2)


def test_after_clear_only_what_is_in_hand_is_left() -> None:
    queue = Queue()
    queue.add("a")
    queue.add("b")
    assert queue.take(0.0) is not None
    queue.add("a")
    queue.clear()
    queue.give_back("a", None)
    assert (queue.take(0.0), len(queue)) == (None, 0)


def test_idle_waits_for_those_in_hand() -> None:
    queue = Queue()
    queue.add("a")
    assert queue.take(0.0) is not None
    queue.close()
    assert not queue.idle(0.01)
    queue.give_back("a", None)
    assert queue.idle(0.01)


def test_many_threads_lose_nothing_and_never_share_a_key() -> None:
    queue, at_work, wrong = Queue(), set[str](), list[str]()
    done: Counter[str] = Counter()
    lock, keys = threading.Lock(), [f"k{n}" for n in range(20)]

    def work() -> None:
        while (taken := queue.take(2.0)) is not None:
            with lock:
                if taken.key in at_work:
                    wrong.append(taken.key)
                at_work.add(taken.key)
                done[taken.key] += 1
                again = done[taken.key] < 50
            with lock:
                at_work.discard(taken.key)
            queue.give_back(taken.key, 0.0 if again else None)
            if sum(done.values()) >= 50 * len(keys):
                queue.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    rng = random.Random(3)
    for key in rng.sample(keys, len(keys)):
        queue.add(key)
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert done == dict.fromkeys(keys, 50)
