"""What each chat template beside the repository can be used for, as the table of docs/templates.md.

PYTHONPATH=tests python tests/helpers/template_table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.chat_rendering import NotRendered
from dskd.tokenization.chat_template import ChatTemplate
from dskd.tokenization.conversations import Conversation, Message
from helpers.chat_templates import CONVERSATIONS, FOLDER, template_files
from helpers.paths import SHARED
from helpers.templated_tokenizers import with_template

HEADER = ("template", "end of a turn", "system", "tools", "reasoning: cut", "reasoning: train", "refused because")
_SYSTEM = Conversation((Message("system", "Answer briefly."), Message("user", "Go."), Message("assistant", "Green.")))
_THOUGHT = Conversation((Message("user", "Go."), Message("assistant", "Green.", reasoning="The grass.")))


def row_of(path: Path, tokenizer: Any) -> list[str]:
    """The row of one template, in a copy of a tokenizer."""
    made = with_template(tokenizer, path.read_text(encoding="utf-8"))
    name = f"{path.parent.name}/{path.stem}"
    templates: dict[str, ChatTemplate | str] = {}
    for reasoning in ("cut", "train"):
        try:
            templates[reasoning] = ChatTemplate(made, reasoning=reasoning)
        except InputError as error:
            templates[reasoning] = _reason(error)
    usable = [each for each in templates.values() if isinstance(each, ChatTemplate)]
    reasons = dict.fromkeys(each for each in templates.values() if isinstance(each, str))
    if not usable:
        return [f"`{name}`", "–", "–", "–", "no", "no", "; ".join(reasons)]
    end = made.convert_ids_to_tokens(usable[0].end)
    system = "yes" if _renders(usable[0], _SYSTEM) else "no"
    tools = "yes" if _renders(usable[0], CONVERSATIONS["tools"]) else "no"
    cut = "yes" if isinstance(templates["cut"], ChatTemplate) else "no"
    return [f"`{name}`", f"`{_escaped(end)}`", system, tools, cut, _training(templates["train"]), "; ".join(reasons)]


def _training(template: ChatTemplate | str) -> str:
    if isinstance(template, str):
        return "no"
    turn = template.turn(_THOUGHT)
    written = turn.written[: turn.written.find("The grass.")].strip()
    return f"after `{_escaped(written)}`" if written else "in the prompt's block"


def _renders(template: ChatTemplate, conversation: Conversation) -> bool:
    """Whether every turn of the assistant is rendered as it is."""
    for k, message in enumerate(conversation.messages):
        if message.role != "assistant":
            continue
        try:
            template.turn(Conversation(conversation.messages[: k + 1], conversation.tools))
        except NotRendered as error:
            if error.reason != "no_reasoning":
                return False
    return True


# What errors say, in short.
_IN_SHORT = {
    "with no special token": "nothing after an answer that a model could learn to stop with",
    "no prompt suits both": "finished turns begin otherwise than the generation prompt ends",
    "opens reasoning": "an answer without reasoning would be in the block that the prompt opens",
    "has no place for reasoning": "the prompt closes reasoning unless an argument turns it on",
    "not iterable": "takes no conversation without tools",
}


def _reason(error: InputError) -> str:
    return next(short for words, short in _IN_SHORT.items() if words in str(error))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")


def table() -> str:
    """The whole table in Markdown."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "data" / "tokenizers" / "minimind")
    rows = [row_of(path, tokenizer) for path in template_files()]
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER}: no chat templates beside the repository")
    print(table())
