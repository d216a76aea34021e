"""BIG-Bench Hard without examples, step by step. The card (README.md) has the protocol."""

from collections.abc import Sequence

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.bbh import score_zero_shot
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.bbh import BigBenchHard
from harness.tasks.task import Doc, Metric

_FORMS = {
    "boolean_expressions": "True or False",
    "causal_judgement": "Yes or No",
    "dyck_languages": "the missing brackets, separated by spaces",
    "formal_fallacies": "valid or invalid",
    "multistep_arithmetic_two": "the number",
    "navigate": "Yes or No",
    "object_counting": "the number",
    "sports_understanding": "yes or no",
    "web_of_lies": "Yes or No",
    "word_sorting": "the words in order, separated by spaces",
}
_OPTION = "the letter of the right option in brackets, such as (A)"


class BigBenchHardZeroShot(BigBenchHard):
    name = "bbh_zeroshot"
    metrics = (Metric("answer"), Metric("strict"), Metric("flexible"))
    stop = ("Q:", "</s>", "<|im_end|>")
    folder = "cot_zeroshot"
    prompts_sha256 = "9cbec12505ac99ab62e09f9e4b66725798aaf3aba2885849d7d4edcd507b5904"

    def ask(self, question: str) -> str:
        return f"Q: {question}\nA: Let's think step by step."

    def instruction(self, doc: Doc) -> Instruction:
        """Return the question, and how its answer is to be given."""
        form = _FORMS.get(doc["task"], _OPTION)
        return Instruction(f'{doc["input"]}\n\nThink step by step, and end with "The answer is" and {form}.')

    def reference(self, doc: Doc) -> str:
        return f" {super().reference(doc)}"

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_zero_shot(docs, outputs, self.stop, advance)


TASK = BigBenchHardZeroShot
