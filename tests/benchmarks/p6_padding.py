"""Bar P6: the share of padding in an epoch's batches of each layout, their speed on a small model, and that the loss is the same.

Without --data the lengths are drawn like Dolly's in GPT-2's tokens: prompts log-normal (4.05, 0.58) of 34 or more, responses
log-normal (3.75, 1.1), together at most --max-length.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.data.batch_sampler import EpochBatches
from dskd.data.collator import Collator
from dskd.data.preparation import encode_example, load_examples
from dskd.modeling.lm_head import final_hidden_states
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary

VOCABULARY = 512
Rows = list[dict[str, Any]]


def drawn(count: int, max_length: int) -> Rows:
    """Examples of random tokens with lengths like Dolly's."""
    generator = np.random.default_rng(0)
    prompts = generator.lognormal(4.05, 0.58, 2 * count).round().clip(34).astype(int)
    lengths = prompts + generator.lognormal(3.75, 1.1, 2 * count).round().clip(2).astype(int)
    fitting = np.flatnonzero(lengths <= max_length)[:count]
    return [_row(generator.integers(0, VOCABULARY, lengths[k]).tolist(), int(prompts[k])) for k in fitting]


def tokenized(file: Path, folder: Path, count: int, max_length: int) -> Rows:
    """The examples of a training file in a tokenizer's tokens; their ids are folded into the small model's vocabulary."""
    tokenizer = load_tokenizer(folder)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    rows = []
    for example in load_examples(file)[:count]:
        encoded = encode_example(tokenizer, vocabulary, example)
        if encoded is not None and len(encoded[0]) + len(encoded[1]) < max_length:
            rows.append(_row([k % VOCABULARY for k in (*encoded[0], *encoded[1], 0)], max(len(encoded[0]), 1)))
    return rows


def _row(ids: list[int], prompt_length: int) -> dict[str, Any]:
    return {"student_ids": ids, "student_prompt_length": prompt_length}


def step(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The summed loss of a batch, its gradients added to the model's."""
    hidden = final_hidden_states(
        model, batch.student.input_ids, batch.student.attention_mask, batch.student.position_ids
    )
    logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.student.labelled])
    loss = cross_entropy(logits, batch.student.labels, reduction="sum")
    loss.backward()
    return loss.detach()


def difference(model: Any, batches: list[list[int]], rows: Rows) -> tuple[float, float]:
    """Relative differences of loss and gradients between the batches packed and one example a row, over as many tokens."""
    found = []
    for packing in (False, True):
        model.zero_grad()
        collator = Collator(packing=packing)
        loss = sum(step(model, collator([rows[k] for k in batch])).double() for batch in batches)
        found.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (loss, gradients), (packed_loss, packed_gradients) = found
    error = (packed_gradients - gradients).norm() / gradients.norm()
    return abs(float(packed_loss / loss) - 1), float(error)


def main() -> None:
    options = report.parser(
        __doc__, "python tests/benchmarks/p6_padding.py --data dolly.jsonl --tokenizer gpt2 --json P6.json"
    )
    options.add_argument("--data", type=Path, metavar="FILE.jsonl", help="a training file instead of drawn lengths")
    options.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="with --data")
    options.add_argument("--examples", type=int, default=4000)
    options.add_argument("--max-length", type=int, default=512)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--batch-tokens", type=int, default=4096)
    options.add_argument("--timed-tokens", type=int, default=8_000, help="about as many are trained on for the speed")
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    if (chosen.data is None) != (chosen.tokenizer is None):
        options.error("give --data and --tokenizer together")
    torch.set_num_threads(1)
    rows = (
        drawn(chosen.examples, chosen.max_length)
        if chosen.data is None
        else tokenized(chosen.data, chosen.tokenizer, chosen.examples, chosen.max_length)
    )
    lengths = [len(row["student_ids"]) for row in rows]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=chosen.max_length,
        )
    ).eval()

    size, tokens = {"batch_size": chosen.batch_size}, {"batch_tokens": chosen.batch_tokens}
    layouts: dict[str, tuple[dict[str, Any], bool]] = {
        "plain": ({**size, "grouping": "random"}, False),
        "length-grouped": ({**size, "grouping": "length_grouped"}, False),
        "token budget": ({**tokens, "grouping": "random"}, False),
        "token budget, length-grouped": ({**tokens, "grouping": "length_grouped"}, False),
        "packed": ({**size, "grouping": "random"}, True),
        "packed, token budget": ({**tokens, "grouping": "random", "padded": False}, True),
    }
    figures, timed, sides = {}, {}, {}
    for name, (arguments, packing) in layouts.items():
        batches = list(EpochBatches(lengths, seed=0, **arguments))
        collator = Collator(packing=packing)
        places = [collator([rows[k] for k in batch])["student_input_ids"].numel() for batch in batches]
        real = [sum(lengths[k] for k in batch) for batch in batches]
        figures[name] = (len(batches), 1 - sum(real) / sum(places), max(real), max(places))
        part = [
            batch for batch, before in zip(batches, np.cumsum([0, *real]), strict=False) if before < chosen.timed_tokens
        ]
        timed[name] = sum(lengths[k] for k in itertools.chain(*part))
        prepared = [collator([rows[k] for k in batch]) for batch in part]
        sides[name] = lambda prepared=prepared: [step(model, batch) for batch in prepared]
    seconds = report.alternate(sides, chosen.repeats)
    speed = {name: timed[name] / seconds[name] for name in layouts}
    whole = list(EpochBatches(lengths, seed=0, **size))[: max(1, 64 // chosen.batch_size)]
    loss_error, gradient_error = difference(model, whole, rows)
    value = {
        "packed": max(figures["packed"][1], figures["packed, token budget"][1]),
        "token_budget": figures["token budget, length-grouped"][1],
        "loss_error": loss_error,
        "gradient_error": gradient_error,
    }
    report.publish(
        "P6",
        [
            {
                "batches": name,
                "an epoch": count,
                "padding": f"{share:.2%}",
                "most tokens": most,
                "most places": widest,
                "tokens/s": round(speed[name]),
                "against plain": speed[name] / speed["plain"],
            }
            for name, (count, share, most, widest) in figures.items()
        ],
        value=value,
        bar={
            "packed": "≤ 0.05 of the places of an epoch, both packed layouts",
            "token_budget": "≤ 0.05, length-grouped",
            "loss_error": "≤ 1e-5 relative, packed against plain over the same examples",
            "gradient_error": "≤ 1e-5 relative, all of them as one vector",
        },
        holds=max(value["packed"], value["token_budget"]) <= 0.05 and max(loss_error, gradient_error) <= 1e-5,
        shapes=f"{len(rows):,} examples of {np.mean(lengths):.0f} tokens, longest {max(lengths)}, "
        + (f"of {chosen.data.name}" if chosen.data else "lengths drawn like Dolly's")
        + f"; batches of {chosen.batch_size} examples or {chosen.batch_tokens:,} tokens",
        dtype="float32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
