"""A served teacher is sent what a live one is run on: no prompt, generation prompt or end of turn is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from dskd.modeling import lm_head
from dskd.modeling.loading import load_tokenizer
from dskd.teachers import live
from dskd.teachers.options import ServedOptions
from helpers.pooling_server import PoolingServer, in_training
from helpers.training_runs import logged, train_tiny


def test_the_ids_and_the_losses_are_those_of_a_live_teacher(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head has padded rows too, which take no part in either."""
    run: list[list[int]] = []  # the texts that the live teacher saw, each without padding
    padding = load_tokenizer(world / "teacher").pad_token_id

    def seen(model: Any, input_ids: Any, attention_mask: Any, position_ids: Any) -> Any:
        assert (
            attention_mask is None
        )  # packed rows: an example begins where positions begin anew, and padding is one more
        begins = (position_ids == 0).flatten().nonzero().flatten().tolist()
        texts = (ids.tolist() for ids in input_ids.flatten().tensor_split(begins) if len(ids))
        run.extend(text for text in texts if set(text) != {padding})
        return lm_head.final_hidden_states(model, input_ids, attention_mask, position_ids)

    monkeypatch.setattr(live, "final_hidden_states", seen)
    changes: dict[str, Any] = {"steps": 5, "batch_size": 4, "max_gradient_norm": 0}
    train_tiny(world, tmp_path / "live", "dskd-v2-eta", **changes)
    with PoolingServer(world / "teacher", counted=in_training) as server:
        rows, tokens = server.model.lm_head.weight.shape[0], len(server.tokenizer)
        assert rows > tokens
        served = ServedOptions(addresses=(server.url,), dtype="float32")
        train_tiny(world, tmp_path / "served", "dskd-v2-eta", served=served, **changes)
    sent = [text for request in server.requests for text in request["input"][1:]]
    # The last label predicts nothing, so that it is not sent.
    assert sorted(sent) == sorted(text[:-1] for text in run)
    data = datasets.load_from_disk(str(world / "cross-data"))
    assert {tuple(text) for text in run} == {tuple(ids) for ids in data["teacher_ids"]}  # whole prompts, and ends
    for one, other in zip(logged(tmp_path / "live"), logged(tmp_path / "served"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
