"""Which task starts when and where: no place is over-committed, large tasks are not starved, and GPUs are kept busy."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.costs.resources import GIGABYTE, Resources
from harness.scheduling.executor import Place
from harness.scheduling.scheduler import Scheduler, Task
from helpers.simulation import Simulation, comparison, least_seconds, simulate

GPUS = Place("box", cpus=64, gpus=8, memory=10**12)


def test_eight_gpus_are_kept_busy_by_155_trainings_within_a_tenth_of_the_best_schedule() -> None:
    tasks = comparison()
    run = simulate(tasks, [GPUS])
    assert run.seconds <= 1.1 * least_seconds(tasks, 8)
    assert run.busy_gpu_seconds() >= 0.9 * 8 * run.seconds


@pytest.mark.parametrize("seed", range(5))
def test_estimates_that_are_wrong_by_half_cost_little(seed: int) -> None:
    tasks = comparison(seed=seed)
    real = {task.id: task.seconds * (0.5 + (index * 7919 % 100) / 100) for index, task in enumerate(tasks)}
    run = simulate(tasks, [GPUS], takes=lambda task: real[task.id])
    best = least_seconds([Task(t.id, t.needs, t.resources, real[t.id]) for t in tasks], 8)
    assert run.seconds <= 1.1 * best


def test_what_has_the_longest_way_to_the_end_starts_first() -> None:
    tasks = [
        Task("short", (), Resources(), 5),
        Task("first of a chain", (), Resources(), 1),
        Task("second of a chain", ("first of a chain",), Resources(), 100),
        Task("long", (), Resources(), 50),
    ]
    assert simulate(tasks, None, jobs=1).order == ["first of a chain", "second of a chain", "long", "short"]


def over_committed(run: Simulation, places: list[Place]) -> list[str]:
    """Moments at which a place was asked for more than it has."""
    changes: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for key, (start, room) in run.starts.items():
        assert room is not None
        changes[room.place] += [(start, 1, key), (start + run.tasks[key].seconds, 0, key)]
    faults = []
    for place in places:
        held: dict[str, int] = defaultdict(int)
        gpus = [0.0] * place.gpus
        for moment, begins, key in sorted(changes[place.name]):
            sign, needs, room = (1 if begins else -1), run.tasks[key].resources, run.starts[key][1]
            assert room is not None
            held["cpus"] += sign * room.cpus
            held["memory"] += sign * min(needs.memory, place.memory)
            for index in room.gpus:
                gpus[index] += sign * min(1.0, needs.gpus)
            if held["cpus"] > place.cpus or held["memory"] > place.memory or max(gpus, default=0) > 1 + 1e-9:
                faults.append(f"{place.name} at {moment}")
    return faults


NEEDS = st.builds(
    Resources,
    cpus=st.sampled_from([None, 1, 2, 4]),
    gpus=st.sampled_from([0, 0.25, 0.5, 1, 2, 4]),
    memory=st.sampled_from([GIGABYTE, 3 * GIGABYTE, 8 * GIGABYTE]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(NEEDS, st.integers(1, 50), st.lists(st.integers(0, 40), max_size=3)), min_size=1, max_size=40),
    st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=3),
)
def test_no_place_is_ever_over_committed_and_everything_runs_after_what_it_needs(
    drawn: list[tuple[Resources, int, list[int]]], gpus: list[int]
) -> None:
    tasks = [
        Task(f"t{index}", tuple({f"t{need % index}" for need in needs} if index else ()), resources, seconds)
        for index, (resources, seconds, needs) in enumerate(drawn)
    ]
    places = [Place(f"p{k}", 4, count, 8 * GIGABYTE) for k, count in enumerate(gpus)]
    run = simulate(tasks, places)
    assert run.starts.keys() == {task.id for task in tasks}
    assert over_committed(run, places) == []
    for task in tasks:
        for need in task.needs:
            assert run.starts[need][0] + run.tasks[need].seconds <= run.starts[task.id][0]


def test_a_large_task_is_not_kept_waiting_by_small_ones() -> None:
    place = Place("box", cpus=8, gpus=4, memory=10**12)
    small = [Task(f"small{k}", (), Resources(gpus=1), 100 + k % 7) for k in range(200)]
    # Ready from the start, and with a shorter way to the end than what comes before it in the list.
    run = simulate([*small, Task("large", (), Resources(gpus=4), 107)], [place])
    assert run.starts["large"][0] < 0.1 * run.seconds


def test_shares_of_a_gpu_fill_one_gpu_before_the_next() -> None:
    tasks = [Task(f"t{k}", (), Resources(gpus=0.25), 10) for k in range(5)]
    run = simulate(tasks, [Place("box", 16, 2, 10**12)])
    used = [room.gpus for _, room in run.starts.values() if room is not None]
    assert sorted(used) == [(0,)] * 4 + [(1,)]
    assert run.seconds == 10


def test_tasks_wait_for_memory_and_one_that_is_larger_than_the_machine_runs_alone() -> None:
    place = Place("box", 16, 0, 10 * GIGABYTE)
    tasks = [Task(f"t{k}", (), Resources(memory=4 * GIGABYTE), 10) for k in range(4)]
    run = simulate([*tasks, Task("huge", (), Resources(memory=50 * GIGABYTE), 10)], [place])
    assert run.seconds == 30
    at = run.starts["huge"][0]
    assert all(start != at for key, (start, _) in run.starts.items() if key != "huge")


def test_gpus_that_were_estimated_are_not_waited_for_where_there_are_none() -> None:
    run = simulate([Task("train", (), Resources(gpus=2), 10)], [Place("laptop", 2, 0, 10**10)])
    assert run.starts["train"][1] is not None
    assert run.starts["train"][1].gpus == ()


def test_a_try_that_ended_frees_its_room_and_takes_it_again() -> None:
    scheduler = Scheduler(
        [Task("a", (), Resources(gpus=1)), Task("b", (), Resources(gpus=1))], [Place("x", 4, 1, 10**12)]
    )
    assert [key for key, _ in scheduler.take()] == ["a"]
    assert scheduler.take() == []
    assert scheduler.ended("a") == []
    assert [key for key, _ in scheduler.take()] == ["b"]
    scheduler.again("a")
    assert scheduler.take() == []
    scheduler.done("b")
    assert [key for key, _ in scheduler.take()] == ["a"]


def test_what_needs_a_task_that_failed_is_dropped_with_all_behind_it() -> None:
    names = {"a": (), "b": ("a",), "c": ("b",), "d": (), "e": ("d", "a")}
    scheduler = Scheduler([Task(key, needs, Resources()) for key, needs in names.items()], None)
    assert [key for key, _ in scheduler.take()] == ["a", "d"]
    assert scheduler.drop("a") == ["b", "c", "e"]
    scheduler.done("d")
    assert scheduler.take() == []
    assert not scheduler.waiting
