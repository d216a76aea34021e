"""The table of docs/spaces.md has what each method says of its tuning; `python tests/docs/test_spaces_page.py` prints it anew."""

from __future__ import annotations

from dskd.methods import METHODS
from harness.cli.show_method import space_of
from helpers.paths import ROOT

PAGE = ROOT / "docs" / "spaces.md"
HEAD = "| method | tuned over |\n|---|---|\n"


def table() -> str:
    """A row a method that ships: its options and their ranges."""
    rows = []
    for name, method in METHODS.items():
        if not method.__module__.startswith("dskd."):
            continue
        space = space_of(method)
        own = [f"`{row['option']}` {row['over']}" for row in space if not row["option"].endswith("learning_rate")]
        rates = "both learning rates" if len(space) - len(own) == 2 else "learning rate"
        rows.append(f"| `{name}` | {'; '.join([*own, rates])} |\n")
    return HEAD + "".join(rows)


def test_the_table_has_every_method_with_its_space() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_the_words_on_learning_rates_are_the_ranges() -> None:
    over = {row["option"]: row["over"] for row in space_of(METHODS["dskd-v2"])}
    assert over["training.learning_rate"] == "the default times 0.25 to 4, by ratio"
    assert over["training.projector_learning_rate"] == "the default times 0.1 to 10, by ratio"
    assert "0.25 to 4 times the matrix's, and for projectors 0.1 to 10 times" in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    print(table(), end="")
