"""MBPP+: MBPP's functions with about a hundred inputs each, by evalplus. The card (README.md) has the protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.code import CodeFormat, program_of_its_own
from harness.tasks.code_plus import EVALPLUS_STOPS, PlusTask
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc

# What a problem's arguments stand for, by its number (evalplus 0.3.1, evalplus/data/mbpp.py): names of plus_checker's CONVERTERS,
# one for each argument, the last for all that follow.
_CONVERTERS: dict[tuple[str, ...], tuple[int, ...]] = {
    ("tuple",): (
        2,
        116,
        132,
        143,
        222,
        261,
        273,
        394,
        399,
        421,
        424,
        429,
        470,
        560,
        579,
        596,
        616,
        630,
        726,
        740,
        744,
        809,
    ),
    ("tuples",): (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ("tuples", "same"): (75, 413, 444, 753),
    ("same", "tuple"): (106, 750),
    ("sets",): (115,),
    ("float", "complex"): (124,),
    ("tuple", "same"): (250, 405, 446, 617, 720, 763, 808, 307),
    ("complex",): (252,),
    ("tuple of tuples",): (259, 401, 445),
    ("tuple with tuples",): (278,),
    ("all tuples",): (580, 615, 791),
    ("tuples by key", "same"): (722,),
}
_CONVERTERS_OF = {number: names for names, numbers in _CONVERTERS.items() for number in numbers}

# How values are compared, by the function's name (evalplus/eval/__init__.py and _special_oracle.py).
_ORACLES: dict[str, tuple[str, ...]] = {
    "same set": (
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    ),
    "not none": ("check_str", "text_match_three", "text_starta_endb"),
    "anything": ("are_equivalent",),
    "or zero": ("sum_div",),
    "or surface": ("surface_Area",),
    "or digits": ("digit_distance_nums",),
}
_ORACLE_OF = {function: name for name, functions in _ORACLES.items() for function in functions}

# Further inputs that are left out, by number of the problem: what is to be returned are 1.6 million tuples, 1.2 GB.
_LEFT_OUT = {255: [["Dog", "Cat", "CatBird", "Bird", "Fish"], 77]}


class MbppPlus(PlusTask):
    name = "mbpp_plus"
    licence = "Apache-2.0 (evalplus); MBPP CC-BY-4.0 (Google LLC)"
    stop = (*EVALPLUS_STOPS, '\n"""', "\nassert")
    # The prompt is a docstring: there is no function in it to continue, and an answer is a whole program.
    form = CodeFormat(program=program_of_its_own, prompt=lambda _: "")
    data = DataFile(
        path="evalplus/MbppPlus.jsonl.gz",
        sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
        size=336032,
    )

    def documents(self) -> list[Doc]:
        """Return the 378 problems; one input of one of them is left out."""
        docs = super().documents()
        for doc in docs:
            if (left_out := _LEFT_OUT.get(_number(doc))) is not None:
                doc["plus_input"] = [one for one in doc["plus_input"] if one != left_out]
        return docs

    def oracle(self, row: Mapping[str, Any]) -> str | None:
        """Return how values are compared, where not by equality."""
        return _ORACLE_OF.get(row["entry_point"])

    def converters(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Return what the arguments stand for."""
        return _CONVERTERS_OF.get(_number(row), ())

    def item(self, doc: Doc) -> str:
        """Return the problem's number in MBPP."""
        return f"mbpp/{_number(doc)}"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the problem with its assertion, and how the code is to be given."""
        return Instruction("Write this Python function. Answer with the code in a code block.", doc["prompt"])


def _number(row: Mapping[str, Any]) -> int:
    return int(row["task_id"].partition("/")[2])


TASK = MbppPlus
