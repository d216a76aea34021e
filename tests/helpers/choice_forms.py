"""Ways in which chat models state an answer to a question of BIG-Bench Hard; each also states another answer, which is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# {gold} is the key, {other} another answer of its kind.
ANY = {
    "alone": "{gold}",
    "alone with a full stop": "{gold}.",
    "alone between blank lines": "\n\n{gold}\n\n",
    "alone and bold": "**{gold}**",
    "sentence": "The answer is {gold}.",
    "sentence without a full stop": "The answer is {gold}",
    "colon": "The answer is: {gold}",
    "lower case": "so the answer is {gold}.",
    "bold in a sentence": "The correct answer is **{gold}**.",
    "bold sentence": "**The correct answer is {gold}.**",
    "label": "Answer: {gold}",
    "bold label": "**Answer:** {gold}",
    "bold label and answer": "**Answer: {gold}**",
    "bold label, bold answer": "**Final Answer**: **{gold}**",
    "capital label": "ANSWER: {gold}",
    "final label": "Final answer: {gold}",
    "heading": "### Final Answer\n\n{gold}",
    "heading and bold": "## Answer\n**{gold}**",
    "list item": "- Answer: {gold}",
    "block quote": "> **Answer:** {gold}",
    "equals": "answer = {gold}",
    "code": "Answer: `{gold}`",
    "fenced": "Final answer:\n```\n{gold}\n```",
    "tags": "I compared them all.\n<answer>{gold}</answer>",
    "quotes": 'Therefore, the answer is "{gold}".',
    "typographic quotes": "The answer is “{gold}”.",
    "next line": "The answer is:\n\n{gold}",
    "after steps": "Let us see. First this, then that.\n\nNothing else is left.\n\nSo the answer is {gold}.",
    "after numbered steps": "Sure!\n\n1. Read it.\n2. Work it out.\n\n**Final answer:** {gold}",
    "of the question": "The answer to the question is {gold}.",
    "would be": "The answer would be {gold}.",
    "mine": "My answer is {gold}.",
    "sure of it": "I am sure that the answer is {gold}.",
    "reason after a comma": "The answer is {gold}, as shown above.",
    "explained": "{gold}\n\nExplanation: it follows from what is given.",
    "label, explained": "Answer: {gold}\n\nExplanation: this follows at once, and nothing else does.",
    "hope": "The answer is {gold}.\n\nI hope this helps!",
    "offer": "The answer is {gold}.\n\nLet me know if you would like me to go through the 3 steps again.",
    "question of its own": "So the answer is {gold}.\n\nQ: And now?\nA: So the answer is {other}.",
    "numbered question of its own": "The answer is {gold}.\n\nQuestion 2: And now?\nAnswer: {other}",
    "other speaker": "The answer is {gold}.\n\nUser: Are you sure it is not {other}?",
    "draft": "Draft answer: {other}. That does not hold.\n\nFinal answer: {gold}",
    "first thought": "At first I thought the answer is {other}. Checked again, the answer is {gold}.",
    "not but": "The answer is not {other} but {gold}.",
    "no-break space and BOM": "\ufeffAnswer:\u00a0{gold}",
    "half a reasoning": "Nothing is left.\n</think>\n\nThe answer is {gold}.",
}
BOXED = {
    "box": r"\boxed{{{gold}}}",
    "box in a sentence": r"The final answer is $\boxed{{{gold}}}$.",
    "box with text": r"$$\boxed{{\text{{{gold}}}}}$$",
    "box after a sentence": r"So it cannot be {other}. \[ \boxed{{{gold}}} \]",
}
OPTION = {
    "letter": "{letter}",
    "letter, full stop": "{letter}.",
    "letter, bracket": "{letter})",
    "square brackets": "[{letter}]",
    "small letter": "({small})",
    "small letter, bracket": "{small})",
    "bold letter": "**{letter}**",
    "option": "Option {letter}",
    "option in a sentence": "The correct option is {letter}.",
    "answer is option": "The answer is option ({letter}).",
    "with its text": "({letter}) {text}",
    "letter with its text": "{letter}. {text}",
    "label with its text": "The correct answer is: ({letter}) {text}",
    "bold with its text": "**({letter}) {text}**",
    "dash and text": "Answer: {letter} - {text}",
    "text before the letter": "Answer: {text} ({letter})",
    "reason": "The answer is {letter} because nothing else fits.",
    "is correct": "Option {letter} is correct.",
    "bracket is correct": "({letter}) is the correct answer.",
    "chosen": "I would choose {letter}.",
    "box with a letter": r"\boxed{{{letter}}}",
    "box with its text": r"\boxed{{\text{{({letter}) {text}}}}}",
    "not and then": "It is not ({second}). It is ({letter}).",
    "instead": "Therefore, ({letter}) rather than ({second}).",
    "list, then the letter": "{list}\n\nTherefore, ({letter}).",
    "list with remarks": "{remarks}\n\nSo the answer is ({letter}).",
    "list, then alone": "{list}\n\n**{letter}**",
    "first line": "{letter}. {text}\n\nThe others do not fit what is given.",
}
OPTION_TEXT = {
    "text alone": "{text}",
    "text in a sentence": "The answer is {text}.",
    "text in quotes": 'The answer is "{text}".',
    "bold text": "So it is **{text}**.",
    "text after a list": "{list}\n\nFinal answer: {text}",
}
WORD = {
    "reason after a comma, alone": "{gold}, because it follows.",
    "capitals": "{capitals}",
    "small letters": "{small_gold}",
    "label and reason": "Answer: {gold}, because it follows from the premises.",
    "exclamation": "So: {gold}!",
    "two words": "It follows that the answer must be {gold}.",
}
NUMBER = {
    "equation": "2 * ({gold} - 1) - {gold} + 2 = {gold}",
    "decimal": "The answer is {gold}.0.",
    "minus sign": "The answer is {typographic}.",
    "bold of many": "Of all 97 things, **{gold}** remain after 3 steps.",
    "last equation": "First 3 + 4 = 7.\nThen it comes to {other} + 0 - {other} + ({gold}) = {gold}.",
    "total": "In total there are {gold} of them.",
    "final value": "The final result is {gold}.",
    "in mathematics": r"The answer is \( {gold} \).",
}
BRACKETS = {
    "together": "The answer is {together}",
    "commas": "The missing brackets are: {commas}. So the answer is {commas}.",
    "quoted": "The answer is {quoted}.",
    "whole sequence": "The complete sequence is: {given} {gold}",
    "whole sequence, marked": "The answer is: `{given} {gold}`",
    "escaped in a box": r"\boxed{{{escaped}}}",
}
WORDS = {
    "list with commas": "The answer is {commas}.",
    "list with and": "Sorted: {with_and}.",
    "lines": "Here are the words in order:\n\n{lines}",
    "numbered": "The sorted list is:\n\n{numbered}\n\nLet me know if you need more.",
    "bullets": "Sorted words:\n{bullets}",
    "capitalised": "The answer is {titles}.",
    "after a draft": "The words are: {other}.\n\nFinal answer:\n{numbered}",
    "bold list": "**{commas}**",
}
OF_KIND = {"option": OPTION, "word": WORD, "number": NUMBER, "brackets": BRACKETS, "words": WORDS, "text": {}}


def statements(doc: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Answers in the question's own terms: name, right, wrong."""
    pairs = {
        "sports_understanding": ("yes", "So the sentence is plausible.", "So the sentence is not plausible."),
        "web_of_lies": ("Yes", "So the last one tells the truth.", "So the last one does not tell the truth."),
        "navigate": ("Yes", "So you return to the starting point.", "So you do not return to the starting point."),
        "formal_fallacies": ("valid", "So the argument is valid.", "So the argument is not valid."),
    }
    if doc["task"] not in pairs:
        return []
    word, said, denied = pairs[doc["task"]]
    return [("statement", said, denied) if doc["target"] == word else ("statement", denied, said)]


def forms(doc: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each form's name, the answer with the key in it, and with another answer in its place."""
    kind, right, wrong = _fields(doc)
    chosen = ANY | ({} if kind == "brackets" else BOXED) | OF_KIND[kind]
    if kind == "option" and len(set(right["texts"])) == len(right["texts"]):
        chosen |= OPTION_TEXT
    for name, form in chosen.items():
        if kind == "words" and name in ("not but", "box after a sentence"):
            continue  # nobody says which order it is not
        if kind == "text" and name in ("explained", "reason after a comma"):
            continue  # a text ends with its line
        alone = kind == "option" and len(right["texts"]) == 1  # one row has a single option, which is in most forms
        yield name, form.format(**right), "(Z)" if alone else form.format(**wrong)
    yield from statements(doc)


def _fields(doc: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    gold = doc["target"]
    options = dict(re.findall(r"^\(([A-Z])\) ?(.*)$", doc["input"], re.MULTILINE))
    if options and not gold.startswith("("):
        return "text", {"gold": gold, "other": "something else"}, {"gold": "something else", "other": gold}
    if options:
        letters = list(options)
        other = (
            letters[(letters.index(gold[1]) + 1) % len(letters)] if len(letters) > 1 else "Z"
        )  # one row has one option
        options.setdefault("Z", "zigzag")
        listed = {letter: options[letter] for letter in letters}
        return "option", _option(options, listed, gold[1], other), _option(options, listed, other, gold[1])
    if re.fullmatch(r"-?\d+", gold):
        return "number", _number(int(gold), int(gold) + 1), _number(int(gold) + 1, int(gold))
    if doc["task"] == "dyck_languages":
        given = doc["input"].rpartition("Input: ")[2]
        other = gold[:-1] + ("]" if gold[-1] != "]" else ")")
        return "brackets", _brackets(given, gold, other), _brackets(given, other, gold)
    if doc["task"] == "word_sorting":
        words = gold.split()
        other = " ".join([words[1], words[0], *words[2:]])
        return "words", _words(gold, other), _words(other, gold)
    other = {"Yes": "No", "yes": "no", "True": "False", "valid": "invalid"}
    other |= {value: key for key, value in other.items()}
    return "word", _word(gold, other[gold]), _word(other[gold], gold)


def _option(options: dict[str, str], shown: dict[str, str], letter: str, second: str) -> dict[str, Any]:
    listed = "\n".join(f"({key}) {text}" for key, text in shown.items())
    remarks = "\n".join(
        f"({key}) {text}: {'fits' if key == letter else 'does not fit'}." for key, text in shown.items()
    )
    return {
        "gold": f"({letter})",
        "other": f"({second})",
        "letter": letter,
        "small": letter.lower(),
        "second": second,
        "text": options[letter].strip(),
        "texts": [re.sub(r"\W+", " ", text).strip().lower() for text in shown.values()],
        "list": listed,
        "remarks": remarks,
    }


def _word(gold: str, other: str) -> dict[str, Any]:
    return {"gold": gold, "other": other, "capitals": gold.upper(), "small_gold": gold.lower()}


def _number(gold: int, other: int) -> dict[str, Any]:
    return {"gold": gold, "other": other, "typographic": str(gold).replace("-", "−")}


def _brackets(given: str, gold: str, other: str) -> dict[str, Any]:
    parts = gold.split()
    return {
        "gold": gold,
        "other": other,
        "given": given,
        "together": "".join(parts),
        "commas": ", ".join(parts),
        "quoted": ", ".join(f'"{part}"' for part in parts),
        "escaped": gold.replace("}", r"\}"),
    }


def _words(gold: str, other: str) -> dict[str, Any]:
    parts = gold.split()
    return {
        "gold": gold,
        "other": other,
        "commas": ", ".join(parts),
        "with_and": f"{', '.join(parts[:-1])}, and {parts[-1]}",
        "lines": "\n".join(parts),
        "numbered": "\n".join(f"{number}. {part}" for number, part in enumerate(parts, 1)),
        "bullets": "\n".join(f"- {part}" for part in parts),
        "titles": ", ".join(part.capitalize() for part in parts),
    }
