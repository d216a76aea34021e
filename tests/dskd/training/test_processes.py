"""Several processes train one student: torchrun with gloo on the CPU, two processes against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dskd import methods
from helpers import tiny_world

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
# With larger steps, rounding would grow: Adam divides by the gradient's size, also where that is nearly zero.
OPTIONS = {"steps": 12, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "max_gradient_norm": 0.5}

# Trains every case in turn, so that the imports are paid once; each process writes what it holds at the end.
TRAIN = """
    import json, os, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from dskd.training import trainer
    from dskd.training import run as training

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


def _run(script: Path, processes: int, *arguments: Path | str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*launcher, str(script), *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _changes(name: str) -> dict[str, Any]:
    """With smaller steps where rounding, that Adam makes larger, would decide which token comes next in a text or a list."""
    own = tiny_world.text_of(name)
    return {**own, "learning_rate": 1e-3} if own else {}


CASES = {name: (name, _changes(name)) for name in methods.METHODS} | {
    "packed, by tokens": ("dskd-v2-eta", {"packing": True, "batch_tokens": 150, "batch_size": 16}),
    "not fused": ("dskd-v2-eta", {"fused_loss": False}),
    "small chunks": ("dskd-v2-eta", {"chunk_tokens": 16}),
    "checkpointed layers": ("dskd-v2-eta", {"gradient_checkpointing": True}),
    "adapter": ("dskd-v2-eta", {"lora": {"rank": 4}}),
}


# Projectors and two vocabularies, and packed rows. The others are slow.
USUAL = {"dskd-v2-eta", "packed, by tokens"}


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """(folder of one process, folder of two processes): every case that is asked for, trained by both."""
    asked = {
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "trained" in item.fixturenames
    }
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    for processes in (1, 2):
        cases = {
            case: (
                name,
                tiny_world.student_of(name),
                {**OPTIONS, **changes, "gradient_accumulation_steps": 2 // processes},
            )
            for case, (name, changes) in CASES.items()
            if case in asked
        }
        _run(script, processes, world, folder / str(processes), json.dumps(cases))
    return folder / "1", folder / "2"


def _facts(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"facts_{rank}.json").read_text())


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in USUAL else pytest.mark.slow) for case in CASES]
)
def test_two_processes_give_the_losses_and_weights_of_one(trained: tuple[Path, Path], case: str) -> None:
    one, two = (folder / case for folder in trained)
    alone, first, second = _facts(one, 0), _facts(two, 0), _facts(two, 1)
    assert alone["world"] == 1
    for facts in (first, second):
        assert (facts["world"], facts["wrapper"]) == (2, "DistributedDataParallel")
    assert len(alone["losses"]) == OPTIONS["steps"]
    for logged in zip(alone["losses"], first["losses"], strict=True):
        # Figures of the student's own text are of one process.
        ours, theirs = ({k: v for k, v in entry.items() if not k.startswith("rollout")} for entry in logged)
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-7)
    assert first["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    held, other = (load_file(two / f"held_{rank}.safetensors") for rank in (0, 1))
    for name, value in load_file(one / "held_0.safetensors").items():
        torch.testing.assert_close(held[name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(held[name], other[name]), name
    assert any(name.startswith("projectors.") for name in held) == CASES[case][0].startswith("dskd")


# Both processes see every token, so that nothing but the spread weights differs from one process with whole ones.
SPREAD = """
    import json, sys
    from pathlib import Path
    from types import SimpleNamespace
    import datasets, torch
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from safetensors.torch import save_file
    from torch.distributed.fsdp import FSDPModule, fully_shard
    from torch.distributed.tensor import DTensor
    from dskd import methods
    from dskd.data.collator import Collator
    from dskd.modeling.loading import load_model, load_tokenizer
    from dskd.teachers.live import LiveTeacher
    from dskd.training.distiller import Distiller
    from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary

    world, output, spread = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "spread"
    if spread:
        torch.distributed.init_process_group("gloo")

    def shard(distiller, by_accelerate):
        # The layers in groups of their own, and all else, head and projectors among it, in the outermost.
        if by_accelerate:
            # What Accelerator.prepare calls on GPUs; an Accelerator on a CPU would make DDP of it.
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap",
                                                    reshard_after_forward=True, cpu_ram_efficient_loading=False)
            state = SimpleNamespace(fsdp_plugin=plugin)
            fsdp2_prepare_model(SimpleNamespace(state=state, mixed_precision="no", is_main_process=rank == 0,
                                                device=torch.device("cpu")), distiller)
        else:
            for layer in distiller.student.model.layers:
                fully_shard(layer)
            fully_shard(distiller)
        assert all(isinstance(layer, FSDPModule) for layer in distiller.student.model.layers)

    rank = torch.distributed.get_rank() if spread else 0
    vocabularies = [Vocabulary.from_tokenizer(load_tokenizer(world / name)) for name in ("cross", "teacher")]
    data = datasets.load_from_disk(str(world / "cross-data"))
    for method in ("sft", "dskd-v2", "dskd-v2-eta"):
        for fused in (True, False):
            torch.manual_seed(0)
            student = load_model(world / "cross")
            needs = methods.get(method).requires.teacher
            signal = LiveTeacher(load_model(world / "teacher"), vocabularies[1].size) if needs else None
            distiller = Distiller(student, methods.get(method)(), student_size=vocabularies[0].size, teacher=signal,
                                  shared=share_vocabulary(vocabularies[1], vocabularies[0]), chunked=fused, chunk_tokens=16)
            if spread:
                shard(distiller, by_accelerate=fused)
                assert isinstance(student.get_output_embeddings().weight, DTensor)
            optimizer = torch.optim.SGD(distiller.parameters(), lr=0.5)
            losses, seen = [], {}
            for step in range(3):
                batch = distiller.fetch(Collator()([data[k] for k in range(6 * step, 6 * step + 6)]))
                distiller.method.on_step_begin(distiller.whole_student_head())
                counts = distiller.counts(batch)
                seen = {name: seen.get(name, 0) + float(count) for name, count in counts.items()}
                loss, _ = distiller(batch, counts)
                loss.backward()
                losses.append(loss.item())
                held = {f"gradient.{name}": p.grad for name, p in distiller.named_parameters() if p.grad is not None}
                optimizer.step()
                optimizer.zero_grad()
            assert all(count > 0 for count in seen.values()), seen
            held |= dict(distiller.named_parameters())
            whole = {name: (v.full_tensor() if isinstance(v, DTensor) else v).detach().clone() for name, v in held.items()}
            save_file(whole, output / f"{method}-{fused}-{rank}.safetensors")
            (output / f"{method}-{fused}-{rank}.json").write_text(json.dumps(losses))
    if spread:
        torch.distributed.destroy_process_group()
"""


@pytest.mark.slow  # processes of their own
def test_spread_weights_give_the_loss_and_gradients_of_whole_ones(world: Path, tmp_path: Path) -> None:
    script = tmp_path / "spread.py"
    script.write_text(textwrap.dedent(SPREAD))
    for name, processes in (("whole", 1), ("spread", 2)):
        (tmp_path / name).mkdir()
        _run(script, processes, world, tmp_path / name, name)
    files = sorted((tmp_path / "whole").glob("*.safetensors"))
    assert len(files) == 6
    for path in files:
        expected = load_file(path)
        case = path.stem.removesuffix("-0")
        for rank in (0, 1):
            losses = json.loads((tmp_path / "spread" / f"{case}-{rank}.json").read_text())
            assert losses == pytest.approx(json.loads(path.with_suffix(".json").read_text()), rel=1e-5)
            ours = load_file(tmp_path / "spread" / f"{case}-{rank}.safetensors")
            assert ours.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(
                    ours[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=f"{case} {name}": f"{n}: {m}"
                )
        first, second = (load_file(tmp_path / "spread" / f"{case}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
