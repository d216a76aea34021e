"""How the setting of a student was chosen, for its card."""

from __future__ import annotations

from harness.publish.markdown import table, text
from harness.publish.student import Student
from harness.tables.setting_text import budget_text, settings_text


def tuning_section(student: Student) -> str:
    """On what its setting was tuned, with how many trials, and what was chosen; empty for one that nobody tuned."""
    tuning = student.record.tuning if student.record is not None else None
    if tuning is None:
        return ""
    tasks = sorted({task for trial in tuning.trials for task in trial.scores})
    budget = budget_text(tuning.budget, halving=tuning.halving)
    of_default = f"; of the default {tuning.default_score:.1f}" if tuning.default_score is not None else ""
    facts = [
        f"- Trials: {len(tuning.trials)} of a budget of {text(budget)}, of another seed than this model",
        f"- Compared on: {text(', '.join(tasks))}",
        f"- Rule: {text(tuning.rule)}",
        f"- Chosen: {text(settings_text(tuning.settings))} (trial {tuning.chosen}; trial 0 is the default)",
        f"- Validation score by the rule: {tuning.score:.1f}{of_default}. It is the best of all trials, and so too high. The scores "
        "above are of test items, which chose nothing.",
    ]
    ranges = [[text(name), text(words)] for name, words in tuning.space.items()]
    space = f"\n{table(['option that was tuned', 'range'], ranges)}" if ranges else ""
    return "".join(f"{fact}\n" for fact in facts) + space
