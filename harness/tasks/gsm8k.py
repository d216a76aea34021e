"""What the tasks of GSM8K share: the data, and prompts with the examples of lm-eval's own few-shot tasks.

The examples are fixed: those of `gsm8k_5shot` are rows of the training file, those of `gsm8k_cot_8shot` are in lm-eval's
gsm8k-cot.yaml, where they are read from. Both are checked against a hash, so that one version of a task has one prompt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import yaml

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction
from harness.lm_eval_files import tasks_of_lm_eval
from harness.tasks.data_files import DataFile, HubRows, Row, rows_digest
from harness.tasks.task import Doc
from harness.tasks.word_problems import NumberTask

_FIELDS = ("question", "answer")
_VALIDATION_ROWS = 500
TEST = DataFile(
    path="gsm8k/test.jsonl",
    sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    size=749738,
    hub=HubRows(
        repository="openai/gsm8k",
        configuration="main",
        split="test",
        fields=_FIELDS,
        rows_sha256="4e5512f7375377feb45da254f295ff7fe6b5e72594ce075b1c12f7417ed52668",
    ),
)
TRAIN = DataFile(
    path="gsm8k/train.jsonl",
    sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    size=4166206,
    hub=HubRows(
        repository="openai/gsm8k",
        configuration="main",
        split="train",
        fields=_FIELDS,
        rows_sha256="c7350ae9ceccc3d62389e709bca3360da91260683bf3d9bbf8778c0386fc95fa",
    ),
)


class Gsm8kTask(NumberTask):
    """The data of GSM8K: the test set, and the end of the training file to choose settings by."""

    data = TEST
    validation_data = TRAIN
    licence = "MIT"
    validation = f"{_VALIDATION_ROWS} rows, the last of the training file"

    @abstractmethod
    def prompts(self, rows: Sequence[Row]) -> list[str]:
        """Return the prompt of each row."""

    def documents(self) -> list[Doc]:
        """Return the 1,319 rows of the test set, numbered from 0, each with its prompt."""
        return self._docs(str, TEST.rows())

    def validation_documents(self) -> list[Doc]:
        """Return the last rows of the training file, by their numbers there: train/6973 and so on. None is an example in a prompt."""
        rows = TRAIN.rows()
        first = len(rows) - _VALIDATION_ROWS
        return self._docs(lambda number: f"train/{first + number}", rows[first:])

    def _docs(self, name: Callable[[int], str], rows: Sequence[Row]) -> list[Doc]:
        return [
            {"id": name(number), "prompt": prompt, **row}
            for number, (row, prompt) in enumerate(zip(rows, self.prompts(rows), strict=True))
        ]


class FewShotGsm8k(Gsm8kTask):
    """GSM8K with fixed examples in every prompt."""

    @abstractmethod
    def shown_examples(self) -> str:
        """Return the examples, as they are in a prompt."""

    def ask(self, question: str) -> str:
        """Return the end of the prompt."""
        return f"Question: {question}\nAnswer:"

    def prompts(self, rows: Sequence[Row]) -> list[str]:
        examples = self.shown_examples()
        return [f"{examples}{self.ask(row['question'])}" for row in rows]

    def prompt(self, doc: Doc) -> str:
        """Return the examples and the question, as lm-eval gives them."""
        return doc["prompt"]

    def question(self, doc: Doc) -> str:
        """Return only the question: the examples are the same in every prompt."""
        return doc["question"]

    def instruction(self, doc: Doc) -> Instruction:
        """Return the whole prompt: lm-eval's `--apply_chat_template` puts examples and question into one turn, too."""
        return Instruction(doc["prompt"])


def training_examples(ids: Sequence[int], sha256: str) -> str:
    """Return rows of the training file as lm-eval's gsm8k shows them: questions with their full answers.

    RuntimeError where `sha256` is not the digest of these rows.
    """
    rows = TRAIN.rows()
    chosen = [rows[number] for number in ids]
    if (digest := rows_digest(chosen, _FIELDS)) != sha256:
        raise RuntimeError(f"rows {list(ids)} of {TRAIN.path} have the sha256 {digest}, expected {sha256}")
    return "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in chosen)


def chain_of_thought_examples(sha256: str) -> str:
    """Return the examples of lm-eval's gsm8k_cot, with their worked answers. InputError where the installed ones are others."""
    rows = _lm_eval_samples()
    if (digest := rows_digest(rows, ("question", "target"))) != sha256:
        raise InputError(
            f"lm-eval's gsm8k-cot.yaml: its examples have the sha256 {digest}, expected {sha256}; "
            "fix: install lm-eval 0.4.13, which has the examples that this task was made with"
        )
    return "".join(f"Q: {row['question']}\nA: {row['target']}\n\n" for row in rows)


def _lm_eval_samples() -> list[Row]:
    text = (tasks_of_lm_eval() / "gsm8k" / "gsm8k-cot.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["fewshot_config"]["samples"]
