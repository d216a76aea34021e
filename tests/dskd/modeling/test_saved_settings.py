"""Generation settings that transformers refuses to save, and the end that a student was trained with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from dskd.errors import InputError
from dskd.modeling.loading import load_model
from dskd.modeling.saved_settings import name_end

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def saved(llama: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What the generation settings are once a model with these was loaded and saved."""
    shutil.copytree(llama, folder / "before")
    (folder / "before" / "generation_config.json").write_text(json.dumps(settings))
    load_model(folder / "before").save_pretrained(folder / "after")
    found = json.loads((folder / "after" / "generation_config.json").read_text())
    GenerationConfig.from_pretrained(folder / "after").validate(strict=True)
    return {key: value for key, value in found.items() if key not in {"transformers_version", "_from_model_config"}}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # As older chat models have it: meant to be drawn, as their authors' own code did.
        (
            {"temperature": 0.9, "top_p": 0.6, "max_length": 4096, **IDS},
            {"temperature": 0.9, "top_p": 0.6, "max_length": 4096, "do_sample": True, **IDS},
        ),
        ({"top_k": 20, **IDS}, {"top_k": 20, "do_sample": True, **IDS}),
        ({"min_p": 0.1, **IDS}, {"min_p": 0.1, "do_sample": True, **IDS}),
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.6, **IDS}, {"do_sample": False, **IDS}),
        (
            {"early_stopping": True, "length_penalty": 2.0, "repetition_penalty": 1.1, **IDS},
            IDS,
        ),  # of beams, without beams
        ({"do_sample": True, "temperature": 0.7, **IDS}, {"do_sample": True, "temperature": 0.7, **IDS}),
        ({"temperature": 1.0, "top_k": 50, **IDS}, {"temperature": 1.0, "top_k": 50, **IDS}),
    ],
)
def test_settings_are_saved_in_a_form_that_can_be_saved(
    llama: Path, tmp_path: Path, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert saved(llama, tmp_path, settings) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"num_return_sequences": 3}', "Greedy methods .*num_return_sequences"),
        ('{"early_stopping": "perhaps"}', "early_stopping"),
        ("{", "not JSON"),
    ],
)
def test_settings_that_transformers_does_not_even_load_are_one_line(
    llama: Path, tmp_path: Path, text: str, words: str
) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=rf"generation_config\.json: .*{words}.*; fix: ") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "settings", "expected_config", "expected_settings"),
    [
        (2, 2, 7, [7, 2]),
        (2, None, 7, 7),
        (2, [2, 9], 7, [7, 2, 9]),
        ([2, 9], [9, 2], [7, 2, 9], [7, 9, 2]),
        (7, 7, 7, 7),
        (7, [2, 7], 7, [2, 7]),
        ([2, 7], 2, [2, 7], [7, 2]),
        (None, None, 7, 7),
    ],
)
def test_the_end_is_named_and_other_ends_stay(
    llama: Path, tmp_path: Path, config: Any, settings: Any, expected_config: Any, expected_settings: Any
) -> None:
    model = load_model(llama)
    model.config.eos_token_id, model.generation_config.eos_token_id = config, settings
    name_end(model, 7)
    model.save_pretrained(tmp_path)
    found = (
        json.loads((tmp_path / f"{name}.json").read_text())["eos_token_id"] for name in ("config", "generation_config")
    )
    assert tuple(found) == (expected_config, expected_settings)
