"""What tuning gave: a tuned method against its default setting, on the same test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dskd.errors import InputError
from harness.results.item_scores import ItemScores
from harness.statistics.paired_tests import PairedComparison, compare, holm_of
from harness.tables.rows import Leaderboard
from harness.tables.tuning_rows import GainRow, TuningRow


def gain_rows(board: Leaderboard, scores: Mapping[tuple[str, str, str, str, str], ItemScores]) -> list[GainRow]:
    """A row for each column that has a method both tuned and with its default setting.

    Args:
        board: With its rows, and what is known of tuning.
        scores: The item scores by teacher, student, method, task and protocol.
    """
    gains: list[GainRow] = []
    for pair in sorted({each.row.pair for each in board.tuning}):
        of_pair: list[tuple[GainRow, PairedComparison | None]] = []
        for row in (each.row for each in board.tuning if each.row.pair == pair and each.row.default != each.row.method):
            for task in board.tasks:
                default, tuned = (board.find(*pair, method, task) for method in (row.default, row.method))
                if default is None or tuned is None:
                    continue
                column = (default.task, default.protocol)
                items = [scores.get((*pair, each.method, *column)) for each in (default, tuned)]
                of_pair.append(_gain(row, (*column, tuned.metric), (default.value, tuned.value), items))
        gains += _with_holm(of_pair)
    return gains


def _gain(
    row: TuningRow,
    column: tuple[str, str, str],
    values: tuple[float | None, float | None],
    scores: Sequence[ItemScores | None],
) -> tuple[GainRow, PairedComparison | None]:
    gain = GainRow(*row.pair, row.method, row.default, *column, *values)
    default, tuned = scores
    if default is None or tuned is None:
        return replace(gain, reason="no item scores of both"), None
    try:
        found = compare(tuned, default)
    except InputError as error:
        return replace(gain, reason=str(error).partition(";")[0]), None
    done = replace(
        gain,
        difference=round(found.difference, 4),
        ci95=(round(found.ci95[0], 4), round(found.ci95[1], 4)),
        p_value=found.p_value,
        min_detectable_effect=round(found.min_detectable_effect, 2),
        seeds=found.n_seeds,
        n_items=found.n_items,
        excluded=found.n_excluded + found.n_prompts_differ,
        test=found.method,
    )
    return done, found


def _with_holm(gains: Sequence[tuple[GainRow, PairedComparison | None]]) -> list[GainRow]:
    """The rows of one pair with p-values that are adjusted over all of them."""
    adjusted = iter(holm_of([found for _, found in gains if found is not None]))
    return [gain if found is None else replace(gain, p_holm=next(adjusted)) for gain, found in gains]
