"""Answers the claims of a file from records.

Each claim is tested for every pair that it is about against every method in `than`. Such a test is of the mean over tasks of the
paired difference (harness/statistics/joined_tasks.py). Holm's correction is over all tests of the file. A claim holds where all of
its tests say so, and fails where one says the opposite; else it is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dskd.errors import InputError
from harness.claims.claims_file import Claim, ClaimsFile
from harness.claims.evidence import Evidence, MissingError, Pair
from harness.claims.missing import FEWEST_SEEDS, MissingRecords
from harness.claims.rows import ALPHA, Answer, AnsweredClaim, Answers, Tested, TestedTask
from harness.results.item_scores import Results
from harness.statistics.joined_tasks import (
    MOST_SEEDS,
    JoinedDifference,
    Outcome,
    TaskScores,
    as_good_as,
    better_than,
    error_of_items,
    join,
    seeds_needed,
)
from harness.statistics.paired_tests import holm, holm_levels


def answer_claims(claims: ClaimsFile, results: Results, matrices: Sequence[str] = ()) -> Answers:
    """Answer every claim of a file.

    Args:
        claims: The file.
        results: The records and item scores of a run or an export.
        matrices: The names of those that were run, for commands.

    Raises:
        InputError: Where two records of one cell were made with different settings.
    """
    evidence = Evidence(results)
    open_claims = {name: _Open(claim, evidence) for name, claim in claims.claims.items()}
    family = _Family()
    for each in open_claims.values():
        for test in each.tests:
            if test.joined is not None:
                family.add(test)
    decided = family.decided()
    answered = [each.answered(name, decided, matrices) for name, each in open_claims.items()]
    return Answers(claims.name, len(family.tests), answered, evidence.notes)


@dataclass
class _Test:
    """A test before the correction: its difference, or why there is none."""

    claim: Claim
    row: Tested
    joined: JoinedDifference | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for tests that are the same one."""
        row, claim = self.row, self.claim
        named = (row.teacher, row.student, row.better, row.than, claim.direction, f"{claim.margin:g}")
        return (*named, *(each.task for each in row.tasks))

    def outcome(self) -> tuple[float, Outcome]:
        assert self.joined is not None
        if self.claim.direction == "as-good":
            return as_good_as(self.joined, self.claim.margin)
        return better_than(self.joined, self.claim.margin)


class _Open:
    """A claim with its tests, and with what has no records."""

    def __init__(self, claim: Claim, evidence: Evidence) -> None:
        self.claim = claim
        self.tests: list[_Test] = []
        self.missing = MissingRecords(claim, evidence)
        pairs = evidence.pairs_of(claim)
        if not pairs:
            self.missing.add_every_pair()
        for pair in pairs:
            for other in claim.than:
                test = self._test(evidence, pair, claim.recorded(claim.better), claim.recorded(other))
                if test is not None:
                    self.tests.append(test)

    def _test(self, evidence: Evidence, pair: Pair, better: str, than: str) -> _Test | None:
        row = Tested(*pair, better, than, "undecided")
        try:
            columns = evidence.tasks_of(self.claim, pair)
            tasks = self._scores(evidence, pair, (better, than), columns)
            if tasks is None:
                return None
            joined = join(tasks)
        except InputError as error:
            return _Test(self.claim, replace(row, reason=str(error)))
        row = replace(row, **_measured(joined))
        if self.claim.tuned and (reason := evidence.unlike_tuning(pair, (better, than))):
            return _Test(self.claim, replace(row, reason=reason))
        if min(joined.seeds) < FEWEST_SEEDS:
            few = f"{min(joined.seeds)} seed{'s' if min(joined.seeds) > 1 else ''} of a method; at least {FEWEST_SEEDS} of each are needed"
            return _Test(self.claim, replace(row, seeds_needed=FEWEST_SEEDS, reason=few))
        return _Test(self.claim, row, joined)

    def _scores(
        self, evidence: Evidence, pair: Pair, methods: tuple[str, str], columns: Sequence[str]
    ) -> list[TaskScores] | None:
        """The scores of both on every task; None where some are missing, which is then remembered."""
        found, complete = [], bool(columns)
        for method in methods if not columns else ():
            self.missing.add(pair, method, "", "")
        for column in columns:
            sides, higher = [], True
            for method in methods:
                try:
                    scores, higher = evidence.scores(pair, method, column)
                    sides.append(scores)
                except MissingError as missing:
                    self.missing.add(pair, method, column, str(missing))
                    complete = False
            if len(sides) == 2:
                found.append(TaskScores(column, sides[0], sides[1], higher))
        return found if complete else None

    def answered(self, name: str, decided: Callable[[_Test], Tested], matrices: Sequence[str]) -> AnsweredClaim:
        tests = [decided(test) if test.joined is not None else test.row for test in self.tests]
        claim, missing = self.claim, self.missing.described()
        command, matrix = self.missing.command(matrices)
        return AnsweredClaim(
            id=name,
            statement=claim.statement,
            says=claim.source.says,
            source=claim.source.cited,
            direction=claim.direction,
            margin=claim.margin,
            answer=_joint([test.answer for test in tests], bool(missing)),
            tests=tests,
            missing=missing,
            command=command,
            matrix=matrix,
        )


def _joint(answers: Sequence[Answer], incomplete: bool) -> Answer:
    """One opposite is enough to fail. To hold, everything must be there and say so."""
    if "fails" in answers:
        return "fails"
    if incomplete or not answers:
        return "no records"
    return "holds" if set(answers) == {"holds"} else "undecided"


class _Family:
    """All different tests of a file, corrected together."""

    def __init__(self) -> None:
        self.tests: dict[tuple[str, ...], _Test] = {}

    def add(self, test: _Test) -> None:
        """Count a test; the same one of another claim counts once."""
        self.tests.setdefault(test.key, test)

    def decided(self) -> Callable[[_Test], Tested]:
        """A function that gives the row of a test with its answer."""
        outcomes = {key: test.outcome() for key, test in self.tests.items()}
        p_values = [p_value for p_value, _ in outcomes.values()]
        adjusted = dict(zip(outcomes, holm(p_values), strict=True))
        levels = dict(zip(outcomes, holm_levels(p_values, ALPHA), strict=True))
        return partial(_decided, outcomes=outcomes, adjusted=adjusted, levels=levels)


def _decided(
    test: _Test,
    *,
    outcomes: dict[tuple[str, ...], tuple[float, Outcome]],
    adjusted: dict[tuple[str, ...], float],
    levels: dict[tuple[str, ...], float],
) -> Tested:
    assert test.joined is not None
    p_value, outcome = outcomes[test.key]
    level, p_holm = levels[test.key], adjusted[test.key]
    # Two one-sided tests at a level belong to the interval at twice that level.
    within = test.claim.direction == "as-good" and outcome == "holds"
    low, high = test.joined.interval(min(1.0, 2 * level) if within else level)
    row = replace(test.row, p_value=p_value, p_holm=p_holm, ci_holm=(round(low, 4), round(high, 4)))
    if p_holm < ALPHA:
        return replace(row, answer=outcome)
    gap = test.joined.centre - test.claim.margin if test.claim.direction == "better" else None
    distance = abs(gap) if gap is not None else abs(abs(test.joined.centre) - test.claim.margin)
    number = seeds_needed(test.joined, distance, level, within=within)
    return replace(row, seeds_needed=number, reason=_needs(test.joined, number, within=within))


def _needs(joined: JoinedDifference, number: int | None, *, within: bool) -> str:
    would = "to say that it holds" if within else "to tell"
    if number is not None:
        return f"about {number} seeds of each {would}, were the observed difference true"
    return (
        f"more than {MOST_SEEDS} seeds of each {would}, were the observed difference true "
        f"(the test items alone leave ± {1.96 * error_of_items(joined):.1f} points)"
    )


def _measured(joined: JoinedDifference) -> dict:
    low, high = joined.interval()
    return {
        "difference": round(joined.difference, 4),
        "ci95": (round(low, 4), round(high, 4)),
        "seeds": joined.seeds,
        "items": sum(task.items for task in joined.tasks),
        "excluded": joined.excluded,
        "tasks": tuple(
            TestedTask(
                task.title, round(task.difference, 4), (round(task.ci95[0], 4), round(task.ci95[1], 4)), task.items
            )
            for task in joined.tasks
        ),
    }
