"""Renders the page: document, scripts and styles in one file that loads nothing else.

The content security policy in its head allows one script and one style by their hashes, so injected markup could not run. The documents
are JSON blocks. Characters with a meaning in HTML or JavaScript are escaped, and so are half surrogate pairs, which UTF-8 cannot encode.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from string import Template
from typing import Any

# In this order: later files use names of earlier ones.
SCRIPTS = (
    "dom.js", "table.js", "scores.js", "plot.js", "differences.js", "curves.js", "costs.js", "alignment.js", "distances.js",
    "tuning.js", "tuning_plots.js", "claims.js",
    "completions.js", "completion_cards.js", "browser.js", "main.js",
)  # fmt: skip
STYLES = ("page.css", "tables.css", "plots.css", "browser.css")
_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def render(document: dict[str, Any], samples: dict[str, Any]) -> str:
    """The whole page. Equal documents give equal text."""
    script = "(() => {\n'use strict';\n" + "\n".join(map(asset, SCRIPTS)) + "\n})();\n"
    style = "\n".join(map(asset, STYLES))
    return Template(asset("page.html")).substitute(
        title=html.escape(f"{document['title']} – distillation report"),
        policy=f"{_POLICY}; script-src {policy_hash(script)}; style-src {policy_hash(style)}",
        style=style,
        script=script,
        document=embedded_json(document),
        samples=embedded_json(samples),
    )


def embedded_json(value: Any) -> str:
    """JSON for a script element. ValueError for NaN and infinities."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def asset(name: str) -> str:
    """A script, a style or the frame of the page, by its file name."""
    return files("harness.report").joinpath("assets", name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    """What a content security policy names an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
