"""What a model in a folder answers to the probe's texts, computed by transformers here: a served copy of it must answer so too.

One safetensors file. `ids` and `lengths` of the texts; of their positions, one text after the other, `hidden` [positions, hidden] in
float32, `log_probabilities` [positions] of the labels, and `top_ids`, `top_log_probabilities` [positions, k] of the most probable tokens.
Or, where the model could not be run, its header says why (`reason`), and there is nothing else in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from dskd.errors import InputError
from dskd.io import write_atomic
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import final_hidden_states, output_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.engines.base import Answers
from dskd.teachers.options import TeacherOutputKind
from dskd.teachers.probe.texts import LENGTH, TEXTS, question_of
from dskd.teachers.questions import Question
from dskd.tokenization.vocabulary import Vocabulary

_TOP = 64
_REASON = "reason"


@dataclass(frozen=True)
class ReferenceAnswer:
    """What the local copy says to one text.

    Attributes:
        ids: [length] of the text.
        hidden: [length - 1, hidden] float32; float32 log-probabilities [length - 1] of the next tokens; and the most probable tokens.
    """

    ids: list[int]
    hidden: Tensor
    log_probabilities: Tensor
    top_ids: Tensor
    top_log_probabilities: Tensor

    def answer(self, kind: TeacherOutputKind, positions: int) -> Answers:
        """As an engine of this kind gives it, for so many positions from the first on."""
        if kind == "hidden_states":
            return {"hidden": self.hidden[:positions]}
        if kind == "top_k":
            return {"ids": self.top_ids[:positions], "log_probabilities": self.top_log_probabilities[:positions]}
        return {"log_probabilities": self.log_probabilities[:positions]}


@torch.no_grad()
def write_reference(
    folder: Path, file: Path, *, tokenizer: Path | None = None, dtype: str = "float32", device: Any = "cpu"
) -> None:
    """Run the model in a folder on the probe's texts, and keep what it says.

    Args:
        folder: A model folder with all weights, which are loaded.
        file: The safetensors file to write, whole or not at all.
        tokenizer: The folder of the tokenizer that the training uses, by default `folder`: it may begin texts in another way.
        dtype, device: What the model computes in, and where. A served teacher is compared with float32 best.

    Raises:
        InputError: For a folder that holds no causal model.
    """
    reader, model = load_tokenizer(tokenizer or folder), load_model(folder, dtype).to(device)
    rows = model.get_output_embeddings().weight.shape[0]
    size = Vocabulary.from_tokenizer(reader).truncate_to_head(rows, str(folder)).size
    head = output_head(model, size)
    length = min(LENGTH, getattr(model.config.get_text_config(), "max_position_embeddings", None) or LENGTH)
    asked = [question for text in TEXTS if (question := question_of(reader, text, length, size)) is not None]
    kept: dict[str, list[Tensor]] = {"hidden": [], "log_probabilities": [], "top_ids": [], "top_log_probabilities": []}
    with evaluating(model):
        for question in asked:
            ids = torch.tensor([question.ids], device=device)
            positions = torch.arange(len(question.ids), device=device)[None]
            hidden = final_hidden_states(model, ids, torch.ones_like(ids), positions)[0, :-1]
            scores = head.logits(hidden).float().log_softmax(-1)
            top = scores.topk(min(_TOP, size))
            kept["hidden"].append(hidden.float())
            kept["log_probabilities"].append(scores.gather(1, ids[0, 1:, None])[:, 0])
            kept["top_ids"].append(top.indices.int())
            kept["top_log_probabilities"].append(top.values)
    tensors = {name: torch.cat(values).cpu().contiguous() for name, values in kept.items()}
    tensors["ids"] = torch.tensor([k for question in asked for k in question.ids])
    tensors["lengths"] = torch.tensor([len(question.ids) for question in asked])
    write_atomic(file, save(tensors))


def write_reason(file: Path, reason: str) -> None:
    """Keep, in place of answers, why there are none: the report of a probe repeats it."""
    write_atomic(file, save({}, metadata={_REASON: reason}))


def read_reference(file: Path, questions: Sequence[Question]) -> list[ReferenceAnswer] | str:
    """What the local copy said to these questions, or why it was not asked.

    Raises:
        InputError: For a file that is none of `write_reference`, and one of other texts: another tokenizer's, or another version's.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            reason = (opened.metadata() or {}).get(_REASON)
        if reason is not None:
            return reason
        stored = load_file(file)
        lengths = stored["lengths"].tolist()
        ids = [part.tolist() for part in stored["ids"].split(lengths)]
        labels = [length - 1 for length in lengths]
        parts = [
            stored[name].split(labels) for name in ("hidden", "log_probabilities", "top_ids", "top_log_probabilities")
        ]
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{file}: no answers of a local copy ({said}); fix: write them with write_reference") from None
    known = [ReferenceAnswer(*values) for values in zip(ids, *parts, strict=True)]
    found = [next((each for each in known if each.ids[: len(q.ids)] == q.ids), None) for q in questions]
    if any(each is None for each in found):
        raise InputError(
            f"{file}: made of other texts than the probe asks, or with another tokenizer; fix: write it again from the "
            "teacher's folder"
        )
    return [each for each in found if each is not None]
