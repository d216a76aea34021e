"""The order of jobs for an executor with a queue of its own: all are handed over at once, and it knows what each comes after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


class HandOver:
    """What is still to be handed over; the same methods as `harness.scheduling.scheduler.Scheduler`.

    Args:
        needs: Of each job the ids of those that come first, in an order in which each comes after what it needs.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]]) -> None:
        self._order = {key: index for index, key in enumerate(needs)}
        self._after: dict[str, list[str]] = {}
        for key, before in needs.items():
            for need in before:
                self._after.setdefault(need, []).append(key)
        self._queued: set[str] = set()
        self._delayed: set[str] = set()  # what is tried again later, and all that needs it
        self.waiting = set(needs)

    def take(self, now: float = 0.0) -> Iterator[tuple[str, None]]:
        """What is handed over now, each after what it needs."""
        for key in sorted(self.waiting - self._delayed, key=self._order.__getitem__):
            yield key, None

    def begun(self, key: str) -> None:
        """A job was handed over."""
        self.waiting.discard(key)
        self._queued.add(key)

    def done(self, key: str) -> None:
        """A job ended well."""
        self._queued.discard(key)
        self.waiting.discard(key)

    def ended(self, key: str) -> list[str]:
        """A try ended, and another may follow; returns the jobs that were handed over to run after it, which have to be taken back."""
        self._queued.discard(key)
        behind = [each for each in self._behind(key) if each in self._queued]
        self._queued -= set(behind)
        self.waiting |= {key, *behind}
        self._delayed |= {key, *behind}
        return behind

    def again(self, key: str) -> None:
        """A job is handed over once more, and what comes after it."""
        self._delayed -= {key, *self._behind(key)}

    def drop(self, key: str) -> list[str]:
        """A job ended badly: those that need it, directly or not, in order; they will never run."""
        self._queued.discard(key)
        self.waiting.discard(key)
        dropped = [each for each in self._behind(key) if each in self.waiting or each in self._queued]
        self.waiting -= set(dropped)
        self._queued -= set(dropped)
        return dropped

    def _behind(self, key: str) -> list[str]:
        found: set[str] = set()
        heads = list(self._after.get(key, ()))
        while heads:
            if (head := heads.pop()) not in found:
                found.add(head)
                heads += self._after.get(head, ())
        return sorted(found, key=self._order.__getitem__)
