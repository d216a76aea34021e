"""The small world's tokenizers: ordinary folders, exact both ways, and of three kinds."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from harness.smallworld import test_docs as docs_of
from harness.smallworld import validation_docs, write_world
from harness.smallworld.sets import FAMILIES

KINDS = ("bytelevel", "sentencepiece", "bytes")
# The longest example, and the longest response, in tokens: what matrices with these tokenizers leave room for.
LENGTHS = {"bytelevel": (128, 64), "sentencepiece": (128, 64), "bytes": (320, 96)}
TEXTS = [
    "    return x + 3\n",
    "def f(x):\n    if x:\n\n        return [x,\tx]\n",
    " leading and trailing ",
    "two  spaces,   three",
    "\n\nnewlines\r\n\n",
    "Zoë, Łukasz & Çelik: na\u0308ive (combining)",
    "美咲 and 小明 in 京都",
    "🐱🐶 👩\u200d🔬 🎻",
    "1234567 * 89 = <<1+1=2>>2\n#### -5",
    "never seen: ﷽ ঔ 𝄞 \x00\x7f",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, world: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(world / "tokenizers" / request.param)


@pytest.fixture(scope="module")
def both(world: Path) -> dict[str, PreTrainedTokenizerBase]:
    return {kind: AutoTokenizer.from_pretrained(world / "tokenizers" / kind) for kind in KINDS}


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_all_training_text_round_trips_and_prompts_keep_their_tokens(
    tokenizer: PreTrainedTokenizerBase, world: Path, request: pytest.FixtureRequest
) -> None:
    longest, longest_response = LENGTHS[request.node.callspec.params["tokenizer"]]
    for name in ("teacher", "student", "pretraining", "clean"):
        for line in (world / "train" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            example = json.loads(line)
            whole = tokenizer(example["prompt"] + example["output"])["input_ids"]
            prompt = tokenizer(example["prompt"])["input_ids"]
            assert tokenizer.decode(whole, skip_special_tokens=True) == example["prompt"] + example["output"]
            assert whole[: len(prompt)] == prompt
            # The answer and its end fit into what the tasks allow a model to write.
            assert len(whole) - len(prompt) < longest_response
            assert len(whole) < longest


def test_answers_to_all_items_fit_into_what_models_may_write(
    tokenizer: PreTrainedTokenizerBase, request: pytest.FixtureRequest
) -> None:
    longest, longest_response = LENGTHS[request.node.callspec.params["tokenizer"]]
    for task, family in FAMILIES.items():
        for doc in (*docs_of(task), *validation_docs(task)):
            prompt = tokenizer(family.prompt(doc))["input_ids"]
            whole = tokenizer(family.prompt(doc) + family.gold(doc))["input_ids"]
            assert len(whole) - len(prompt) < longest_response
            assert len(whole) < longest


def test_end_and_padding_are_set_and_only_sentencepiece_has_a_start(both: dict[str, PreTrainedTokenizerBase]) -> None:
    ends = {kind: tokenizer.eos_token for kind, tokenizer in both.items()}
    assert ends == {"bytelevel": "<|endoftext|>", "sentencepiece": "</s>", "bytes": "<|endoftext|>"}
    assert all(tokenizer.pad_token_id is not None for tokenizer in both.values())
    for kind in ("bytelevel", "bytes"):
        assert both[kind]("a")["input_ids"][0] != both[kind].bos_token_id
    assert both["sentencepiece"]("a")["input_ids"][0] == both["sentencepiece"].bos_token_id


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    pieces = tokenizer.tokenize("12*345=4140")
    assert "".join(pieces).lstrip("▁") == "12*345=4140"
    assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))


def test_a_newline_stands_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    newline = tokenizer("a\n", add_special_tokens=False)["input_ids"][-1]
    assert tokenizer('"""\n\n    return', add_special_tokens=False)["input_ids"].count(newline) == 2


def test_sentencepiece_writes_rare_characters_as_bytes_and_spaces_as_pieces(
    both: dict[str, PreTrainedTokenizerBase],
) -> None:
    tokenizer = both["sentencepiece"]
    assert tokenizer.tokenize("美")[-3:] == ["<0xE7>", "<0xBE>", "<0x8E>"]
    assert tokenizer.tokenize("\n")[-1] == "<0x0A>"
    assert tokenizer.tokenize("the city")[0].startswith("▁")
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(tokenizer.get_vocab())


def test_the_two_vocabularies_differ(both: dict[str, PreTrainedTokenizerBase]) -> None:
    byte_level, sentencepiece = (both[kind] for kind in ("bytelevel", "sentencepiece"))
    assert len(byte_level) == 896
    assert len(sentencepiece) == 800
    text = "Question: Zoë has 3 apples and buys 4 more.\nAnswer:"
    cuts = []
    for tokenizer in (byte_level, sentencepiece):
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        cuts.append({end for _, end in offsets})
    assert cuts[0] != cuts[1]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_the_bytes_of_the_text(both: dict[str, PreTrainedTokenizerBase], text: str) -> None:
    vocabulary = Vocabulary.from_tokenizer(both["bytes"])
    ids = both["bytes"](text)["input_ids"]
    assert [vocabulary.token_bytes[k] for k in ids] == [bytes([byte]) for byte in text.encode()]
    assert len(both["bytes"]) == 258


def test_bytes_and_the_teachers_pieces_share_the_single_bytes_and_the_end_alone(
    both: dict[str, PreTrainedTokenizerBase], world: Path
) -> None:
    """What docs/small-world.md says of the third pair."""
    teacher, student = (Vocabulary.from_tokenizer(both[kind]) for kind in ("bytelevel", "bytes"))
    shared = share_vocabulary(teacher, student)
    assert not shared.same
    assert (len(shared), teacher.size, student.size) == (257, 896, 258)
    lines = [json.loads(line) for line in (world / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()]
    pieces = [teacher.token_bytes[k] for line in lines for k in both["bytelevel"](line["gold"])["input_ids"]]
    alone = sum(len(piece) == 1 for piece in pieces)
    assert round(alone / len(pieces), 2) == 0.65  # of the teacher's tokens
    assert round(alone / sum(map(len, pieces)), 2) == 0.29  # of the student's


def test_a_model_folder_keeps_the_tokenizer_as_it_is(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """A Llama config beside the tokenizer must not make AutoTokenizer rebuild it as Llama's."""
    tokenizer.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
