"""Words that the glossary (docs/glossary.md) replaces, for tests of documentation and of help texts."""

from __future__ import annotations

import re

# A pattern, and what to write in its place.
COINED = {
    r"teacher(?:'s|s)? signals?|\bsignal(?:s)? (?:of|once|build)": "teacher outputs, teacher cache",
    r"\bteacher_signal\b|--signal-\w+": "teacher_outputs, --teacher-outputs",
    r"TeacherSignal|SignalOptions|SignalDamaged|build_signal|open_signal": "Teacher, TeacherCacheOptions, build_teacher_cache",
    r"un?fused loss|fused loss|\bfused_loss\b|\bunfused\b": "chunked loss",
    r"(?:student|model)(?:'s)? own text\b|text of its own": "rollouts, on-policy samples",
    r"told (?:from|apart)|tells? (?:from|apart)|cries out": "significantly different from",
    r"\bgo(?:es|ing)? on (?:from|after|where)|went on from": "resumes",
    r"\bdear(?:er|est)\b": "most expensive",
    r"\bmend(?:s|ed)?\b": "repaired",
    r"what a machine runs out of": "out of memory or disk",
    r"detectable difference|mde80": "minimum detectable effect",
    r"\bgoldens\b|--goldens": "exact outputs, --exact-outputs",
    r"\bstands?\b(?! out)": "is, is stored",
    r"\bheld\b(?![- ]out)|\bholds (?:it|them) (?:to|against)\b": "stored, compared with",
    r"\bfigures?\b": "metric, number",
    r"--answers (?:chat|completion)": "--response-format",
    r"harness practice\b": "harness init-example",
    r"data overlap\b": "data contamination",
    r"spaces: (?:both|student|teacher)": "distill_in",
    r"policy (?:is|are) `?(?:off|on|either)\b": "on_policy: never, always, optional",
    r"\bkeeps_data\b|\bbegin_step\b|\bper_token\b": "mix_in_offpolicy, on_step_begin, chunkable",
    r"\blarge_notes\b|\bcoarsened\b": "recomputable, with_rest_bucket",
    r"\bof one's own\b": "your own",
    r"\b(?:is|are|was|were) no (?:part|truth|name|target|number|measure|baseline|divergence|file|text)\b": "is not …",
    r"what (?:came|comes) out\b": "the results",
    r"\b(?:one|a) coin\b|drawn? again\b": "random choice, replayed",
    r"lost the habit|habit of adding": "no longer adds",
    r"says? nothing of\b": "says nothing about",
    r"unless told otherwise": "by default",
    r"\bcannot be had\b|\bcould not be had\b": "is not available",
}


def coined_words(text: str) -> list[str]:
    """Return `line: words (write: …)` for every coined word in a text; lines that say what is old are left out."""
    found = []
    lines = [line if not re.search(r"\bold (?:key|name|option)", line) else "" for line in text.splitlines()]
    # A phrase may be broken over two lines, so the text is searched as a whole.
    joined = "\n".join(lines)
    for pattern, replacement in COINED.items():
        for match in re.finditer(pattern.replace(" ", r"\s+"), joined, re.IGNORECASE):
            line = joined.count("\n", 0, match.start()) + 1
            found.append(f"{line}: {' '.join(match.group().split())} (write: {replacement})")
    return sorted(found, key=lambda entry: int(entry.split(":")[0]))
