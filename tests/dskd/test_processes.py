"""Several processes train one student: torchrun with gloo on the CPU, two processes against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import test_training
import torch
from safetensors.torch import load_file

from dskd import methods

world = test_training.world

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
# With larger steps, rounding would grow: Adam divides by the gradient's size, also where that is nearly zero.
OPTIONS = {"steps": 12, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "max_gradient_norm": 0.5}

# Trains every case in turn, so that the imports are paid once; each process writes what it holds at the end.
TRAIN = """
    import json, os, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from dskd import trainer, training

    world, output, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    rank = int(os.environ.get("RANK", 0))
    whole_state = trainer.DistillationTrainer.whole_state

    def keep(self):
        distiller = self.accelerator.unwrap_model(self.model)
        held = {name: value.clone().contiguous() for name, value in distiller.state_dict().items()}
        folder = output / case
        save_file(held, folder / f"held_{rank}.safetensors")
        facts = {
            "world": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
            "wrapper": type(self.model_wrapped).__name__,
            "losses": [{k: v for k, v in entry.items() if k != "grad_norm"} for entry in self.state.log_history if "loss" in entry],
            "norms": [entry["grad_norm"] for entry in self.state.log_history if "loss" in entry],
        }
        (folder / f"facts_{rank}.json").write_text(json.dumps(facts))
        return whole_state(self)

    trainer.DistillationTrainer.whole_state = keep
    for case, (method, student, options) in cases.items():
        training.train(data=world / f"{student}-data", student=world / student, teacher=world / "teacher", method=method,
                       options=training.TrainingOptions(**options), seed=3, output=output / case)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
"""


def _run(script, processes, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*launcher, str(script), *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


CASES = {name: (name, {}) for name in methods.METHODS} | {
    "packed, by tokens": ("dskd-v2-eta", {"packing": True, "batch_tokens": 150, "batch_size": 16}),
    "not fused": ("dskd-v2-eta", {"fused_loss": False}),
    "small chunks": ("dskd-v2-eta", {"chunk_tokens": 16}),
    "checkpointed layers": ("dskd-v2-eta", {"gradient_checkpointing": True}),
    "adapter": ("dskd-v2-eta", {"lora": {"rank": 4}}),
}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """(folder of one process, folder of two processes): every case trained by both."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    for processes in (1, 2):
        cases = {
            case: (
                name,
                test_training._student_of(name),
                {**OPTIONS, **changes, "gradient_accumulation_steps": 2 // processes},
            )
            for case, (name, changes) in CASES.items()
        }
        _run(script, processes, world, folder / str(processes), json.dumps(cases))
    return folder / "1", folder / "2"


def _facts(folder, rank):
    return json.loads((folder / f"facts_{rank}.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_and_weights_of_one(trained, case):
    one, two = (folder / case for folder in trained)
    alone, first, second = _facts(one, 0), _facts(two, 0), _facts(two, 1)
    assert alone["world"] == 1
    for facts in (first, second):
        assert (facts["world"], facts["wrapper"]) == (2, "DistributedDataParallel")
    assert len(alone["losses"]) == OPTIONS["steps"]
    for ours, theirs in zip(alone["losses"], first["losses"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-7)
    assert first["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    held, other = (load_file(two / f"held_{rank}.safetensors") for rank in (0, 1))
    for name, value in load_file(one / "held_0.safetensors").items():
        torch.testing.assert_close(held[name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(held[name], other[name]), name
    assert any(name.startswith("projectors.") for name in held) == CASES[case][0].startswith("dskd")
