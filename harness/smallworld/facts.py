"""Facts about people, in Dolly's format with the Alpaca prompt.

The seed of the world decides the pet, city, drink and instrument of each person. A question asks for two of the four about one
person. The test set asks for the same facts as the training sets, in other wordings and orders.

The wordings of the first block are those of the training sets, which use nearly all of its questions. The second block has further
ones, made of the same words in other places: later test items and all validation items are asked in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from random import Random

from dskd.tokenization.prompt_templates import Instruction, alpaca
from harness.smallworld.families import Doc, Problem

# Characters outside ASCII on purpose: one tokenizer or both split them into bytes.
PEOPLE = (
    "Zoë", "Łukasz", "美咲", "José", "Anna", "Omar", "Søren", "Chloé",
    "Björn", "Noor", "Émile", "Ravi", "Kofi", "Hugo", "Çelik", "小明",
)  # fmt: skip
ATTRIBUTES = {
    "pet": ("cat 🐱", "dog 🐶", "horse", "goat", "parrot", "rabbit", "turtle", "hamster"),
    "city": ("Kraków", "Lisbon", "Zürich", "Kyoto 京都", "Oslo", "Cairo", "Málaga", "Lima"),
    "drink": ("tea 🍵", "coffee", "cocoa", "milk", "juice", "water", "cider", "lemonade"),
    "instrument": ("flute", "violin", "piano", "harp", "drum", "guitar", "trumpet", "organ"),
}
QUESTIONS_WITHOUT_INPUT = (
    "Name the {first} and the {second} of {person}.",
    "What {first} and what {second} does {person} have?",
    "Tell me the {first} and {second} of {person}.",
    "Which {first} and {second} belong to {person}?",
    "Answer with the {first} and {second} of {person}.",
)
QUESTIONS_WITH_INPUT = (
    "Name the {first} and the {second} of this person.",
    "Which {first} and {second} does this person have?",
    "Tell me this person's {first} and {second}.",
)
FURTHER_QUESTIONS_WITHOUT_INPUT = (
    "Tell me the {first} and the {second} of {person}.",
    "Name the {first} and {second} of {person}.",
    "Answer with the {first} and the {second} of {person}.",
    "Which {first} and {second} does {person} have?",
    "What {first} and what {second} belong to {person}?",
)
FURTHER_QUESTIONS_WITH_INPUT = (
    "Tell me the {first} and the {second} of this person.",
    "What {first} and what {second} does this person have?",
    "Name this person's {first} and {second}.",
)
# Of each block the wordings without and with an input.
BLOCKS = (
    (QUESTIONS_WITHOUT_INPUT, QUESTIONS_WITH_INPUT),
    (FURTHER_QUESTIONS_WITHOUT_INPUT, FURTHER_QUESTIONS_WITH_INPUT),
)


class Facts:
    """The family `small_instruct`."""

    task = "small_instruct"

    def problems(self, world_seed: int, rng: Random) -> Iterator[Problem]:
        """Yield every question of the first block once, in a random order, then those of the second."""
        truth = facts_of_the_world(world_seed)
        for without_input, with_input in BLOCKS:
            questions = [
                (person, first, second, question, has_input)
                for person in PEOPLE
                for first, second in permutations(ATTRIBUTES, 2)
                for has_input, wordings in ((False, without_input), (True, with_input))
                for question in wordings
            ]
            rng.shuffle(questions)  # the second time after everything that the first block draws
            for person, first, second, question, has_input in questions:
                facts = truth[person]
                right = _answer(person, facts[first], facts[second])
                wrong = _answer(person, _other(rng, first, facts[first]), _other(rng, second, facts[second]))
                guess = _answer(person, rng.choice(ATTRIBUTES[first]), rng.choice(ATTRIBUTES[second]))
                instruction = question.format(person=person, first=first, second=second)
                doc = {"instruction": instruction, "input": person if has_input else "", "output": right}
                yield Problem(doc, wrong, guess, kind="with input" if has_input else "without input")

    def prompt(self, doc: Doc) -> str:
        return alpaca(self.instruction(doc))

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction(doc["instruction"], doc["input"])

    def gold(self, doc: Doc) -> str:
        return doc["output"]


def facts_of_the_world(world_seed: int) -> dict[str, dict[str, str]]:
    """The true value of every attribute of every person. All values occur equally often."""
    rng = Random(f"{world_seed}/facts")
    truth: dict[str, dict[str, str]] = {person: {} for person in PEOPLE}
    for attribute, values in ATTRIBUTES.items():
        dealt = [values[i % len(values)] for i in range(len(PEOPLE))]
        rng.shuffle(dealt)
        for person, value in zip(PEOPLE, dealt, strict=True):
            truth[person][attribute] = value
    return truth


def _answer(person: str, first: str, second: str) -> str:
    return f"{person}: {first}, {second}"


def _other(rng: Random, attribute: str, value: str) -> str:
    return rng.choice([other for other in ATTRIBUTES[attribute] if other != value])
