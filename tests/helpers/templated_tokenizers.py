"""Real tokenizers with real chat templates: the tokens that a template writes are added as special ones, as its model's tokenizer has them."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

# How the families of models spell the tokens that frame their turns.
_SPELLINGS = re.compile(
    r"<\|[^|<>\s']{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|<\|(?:turn|think|channel|tool|tool_call|tool_response)>|<(?:turn|channel|tool|tool_call|tool_response)\|>"
    r"|<(?:start|end)_of_turn>|<seed:[a-z_:]{1,40}>|</seed:[a-z_:]{1,40}>|<SPECIAL_\d+>|\[\|[a-z]+\|\]"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|TOOL_CALLS|CALL_ID|ARGS|gMASK)\]|<sop>"
)


def with_template(tokenizer: Any, template: str) -> Any:
    """A copy of a tokenizer that has this chat template and its special tokens; <s> and </s> begin and end a text."""
    made = deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokens = sorted(set(_SPELLINGS.findall(template)))
    made.add_special_tokens({"additional_special_tokens": tokens} if tokens else {})
    made.chat_template = template
    return made
