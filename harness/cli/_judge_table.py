"""The summary of `harness judge` as a table and lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.cli.output import interval, number

HEADER = ("measure", "value", "95 % interval", "n")


def rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: win rates of A, lengths, and the judge's agreement with itself."""
    plain, controlled, lengths = summary["win_rate"], summary["length_controlled"], summary["lengths"]
    orders, repeats, outcomes = summary["orders"], summary["repeats"], summary["outcomes"]
    judged = str(outcomes["pairs"] - outcomes["unreadable"])
    table = [
        ("win rate of A", number(plain["value"], ".1f"), interval(plain["ci95"], ".1f"), f"{plain['prompts']} prompts"),
        (
            "length-controlled win rate of A",
            number(controlled["value"], ".1f"),
            interval(controlled["ci95"], ".1f"),
            f"{judged} pairs",
        ),
        ("mean length of A, characters", number(lengths["a"], ".1f"), "", f"{outcomes['pairs']} pairs"),
        ("mean length of B, characters", number(lengths["b"], ".1f"), "", f"{outcomes['pairs']} pairs"),
        *_agreement("both orders", orders, "pairs"),
    ]
    if repeats is not None:
        table += _agreement("asked again, verdicts", repeats["verdicts"], "requests")
        table += _agreement("asked again, outcomes", repeats["outcomes"], "pairs")
    return table


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the counts below the table."""
    outcomes, unreadable, cost = summary["outcomes"], summary["unreadable"], summary["cost"]
    position = summary["position"]
    p, lean = summary["win_rate"]["p"], position["p"]
    tokens = [cost["prompt_tokens"], cost["completion_tokens"]]
    return [
        f"{outcomes['pairs']} pairs: A wins {outcomes['A']}, ties {outcomes['tie']}, B wins {outcomes['B']}, "
        f"unreadable {outcomes['unreadable']}; sign test p = {number(p, '.3g')}",
        f"orders: {outcomes['inconsistent']} pairs inconsistent and so ties, {outcomes['reversed']} of them reversed",
        f"position: first {position['first']}, second {position['second']}, tie {position['tie']}; first of the decided "
        f"{number(position['first_share'], '.1f')} %; twice first {position['first_in_both_orders']}, twice second "
        f"{position['second_in_both_orders']}, p = {number(lean, '.3g')}",
        f"unreadable verdicts: {unreadable['verdicts']} of {unreadable['of']}, {unreadable['cut_off']} cut off",
        f"cost: {cost['requests']} requests, {_tokens(tokens[0])} prompt and {_tokens(tokens[1])} completion tokens, "
        f"{cost['wall_seconds']:.1f} s",
    ]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """Return what the reader must know before believing the table."""
    found = []
    outcomes, pairs = summary["outcomes"], summary["outcomes"]["pairs"]
    if outcomes["unreadable"] > 0.05 * pairs:
        found.append(
            f"{outcomes['unreadable']} of {pairs} pairs have an unreadable verdict and are in no win rate; "
            "judgements.jsonl has the replies (more --max-tokens, or --choices)"
        )
    if summary["length_controlled"].get("overlap") is False:
        found.append("one side has the longer answer in every pair: the win rate at equal length is an extrapolation")
    lean = summary["position"]["p"]
    if lean is not None and lean < 0.05:
        found.append("the judge prefers a position; each pair was asked in both orders, which makes such verdicts ties")
    return found


def _agreement(name: str, measured: Mapping[str, Any], unit: str) -> Sequence[tuple[str, str, str, str]]:
    n = f"{measured['n']} {unit}"
    kappa = (f"{name}: Cohen's kappa", number(measured["kappa"], ".2f"), interval(measured["kappa_ci95"], ".2f"), n)
    return [(f"{name}: agreement, %", number(measured["share"], ".1f"), "", n), kappa]


def _tokens(count: int | None) -> str:
    return "unknown" if count is None else str(count)
