"""What a machine runs out of while training: the run fails with a reason and a hint, and the last good checkpoint stays."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.io import read_object
from dskd.training.checkpoints import RunFolder
from dskd.training.run import TrainingOptions, train
from helpers.tiny_tokenizers import LINES, byte_level


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that is its own teacher, and a training file."""
    import json

    folder = tmp_path_factory.mktemp("world")
    tokenizer = byte_level()
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"prompt": line[:8], "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_dataset(folder / "train.jsonl", folder / "data", student=folder / "model", teacher=folder / "model")
    return folder


def _train(world: Path, output: Path, *, steps: int = 9, **options: Any) -> Any:
    return train(
        data=world / "data",
        student=world / "model",
        teacher=world / "model",
        method="dskd-v2",
        options=TrainingOptions(steps=steps, batch_size=4, checkpoint_steps=3, logging_steps=1, **options),
        output=output,
    )


def _last_good_step(output: Path) -> int:
    checkpoint = RunFolder(output).last_good_checkpoint()
    assert checkpoint is not None
    return read_object(checkpoint / "trainer_state.json")["global_step"]


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dskd.training.distiller import Distiller

    forward = Distiller.forward
    calls = []

    def poisoned(
        self: Distiller, batch: dict[str, torch.Tensor], totals: Any = None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        calls.append(1)
        loss, terms = forward(self, batch, totals)
        return (loss * float("nan") if len(calls) == 5 else loss), terms

    monkeypatch.setattr(Distiller, "forward", poisoned)
    with pytest.raises(TrainingFailed, match=r"^the loss is nan at step 5; fix: lower learning_rate"):
        _train(world, tmp_path)
    monkeypatch.undo()
    assert _last_good_step(tmp_path) == 3
    assert _train(world, tmp_path).resumed_from_step == 3


def test_out_of_memory_says_what_to_lower(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator really refuses, in the fifth step: no machine has an exabyte."""
    from dskd.training.distiller import Distiller

    forward = Distiller.forward
    calls = []

    def greedy(
        self: Distiller, batch: dict[str, torch.Tensor], totals: Any = None
    ) -> tuple[torch.Tensor, dict[str, Any]] | None:
        calls.append(1)
        if len(calls) == 5:
            torch.empty(2**58)
        return forward(self, batch, totals)

    monkeypatch.setattr(Distiller, "forward", greedy)
    with pytest.raises(TrainingFailed, match=r"^out of memory; fix: lower batch_size .* chunk_tokens"):
        _train(world, tmp_path)
    monkeypatch.undo()
    assert _last_good_step(tmp_path) == 3
    assert _train(world, tmp_path).resumed_from_step == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_leaves_the_checkpoint_before_it(world: Path, small_disk: Path) -> None:
    """Two checkpoints of the model and Adam's moments do not fit."""
    with pytest.raises(TrainingFailed, match=r"^the disk is full; fix: free some room"):
        _train(world, small_disk)
    good = _last_good_step(small_disk)
    assert good in (3, 6)
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    report = _train(world, small_disk)
    assert (report.steps, report.resumed_from_step) == (9, good)


def test_a_file_that_may_not_grow_is_told_as_a_full_disk(world: Path, tmp_path: Path) -> None:
    """A quota has its own error; here a limit on the size of a file stands for it."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(TrainingFailed, match=r"^the disk is full; fix: free some room"):
            _train(world, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "model").exists()
    assert _train(world, tmp_path).resumed_from_step == 0


def test_a_teacher_with_torn_weights_is_named(world: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(world / "model", torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"torn/model\.safetensors: was cut off: .*; fix: copy or download it again"):
        train(
            data=world / "data",
            student=world / "model",
            teacher=torn,
            method="kd",
            options=TrainingOptions(steps=3, batch_size=4),
            output=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
