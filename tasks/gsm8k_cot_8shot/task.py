"""GSM8K with the eight examples of chain-of-thought prompting, as lm-eval's gsm8k_cot. The card (README.md) has the protocol."""

import re

from harness.metrics.numbers import CHAIN_OF_THOUGHT
from harness.tasks.gsm8k import FewShotGsm8k, chain_of_thought_examples
from harness.tasks.task import Doc

_EXAMPLES_SHA256 = "543accc1395566cc76bfebc9337445e87998284d4a04c6b2053fb40f26ea1cf5"


class Gsm8kChainOfThought(FewShotGsm8k):
    name = "gsm8k_cot_8shot"
    stop = ("Q:", "</s>", "<|im_end|>")
    ending = CHAIN_OF_THOUGHT

    def shown_examples(self) -> str:
        return chain_of_thought_examples(_EXAMPLES_SHA256)

    def ask(self, question: str) -> str:
        return f"Q: {question}\nA:"

    def reference(self, doc: Doc) -> str:
        """Return the worked answer in the form of the examples, without the data set's calculator marks."""
        steps, _, number = doc["answer"].rpartition("####")
        return f" {re.sub(r'<<.*?>>', '', steps).strip()} The answer is {number.strip()}."


TASK = Gsm8kChainOfThought
