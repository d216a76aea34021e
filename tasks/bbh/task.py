"""BIG-Bench Hard with three worked examples. The card (README.md) has the protocol."""

from collections.abc import Sequence

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.bbh import score_few_shot
from harness.metrics.sample import Advance, SampleScore, score_each
from harness.tasks.bbh import BigBenchHard
from harness.tasks.task import Doc, Metric


class BigBenchHardFewShot(BigBenchHard):
    name = "bbh"
    metrics = (Metric("answer"), Metric("exact_match"), Metric("get_answer"))
    stop = ("Q:", "\n\n", "</s>")
    folder = "cot_fewshot"
    prompts_sha256 = "168e78fce28d8de330fba5dd7ac268839a154d4b974a534b8ea0e7e344a0bbfe"

    def ask(self, question: str) -> str:
        return f"Q: {question}\nA: Let's think step by step.\n"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the whole prompt: lm-eval's `--apply_chat_template` puts examples and question into one turn, too."""
        return Instruction(self.prompt(doc))

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_each(lambda doc, output: score_few_shot(doc, output, self.stop), docs, outputs, advance)


TASK = BigBenchHardFewShot
