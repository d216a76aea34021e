"""The entries of CITATION.cff as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import dskd

_ARXIV = re.compile(r"arXiv:?\s*(\d{4}\.\d{4,5})")


def citation_file() -> Path:
    """CITATION.cff: at the top of the repository in a checkout, inside the package once installed."""
    package = Path(__file__).resolve().parents[1]
    return inside if (inside := package / "_citation.cff").is_file() else package.parent / "CITATION.cff"


def bibtex(paper: str = "") -> str:
    """The entries of this software and of its papers; of the method's own paper where it is another.

    Args:
        paper: As methods name theirs, such as `arXiv 2306.13649`.
    """
    content = yaml.safe_load(citation_file().read_text(encoding="utf-8"))
    entries = [_software(content)]
    references = [_article(reference) for reference in content.get("references", [])]
    found = _ARXIV.search(paper)
    if found and not any(found[1] in reference for reference in references):
        references = [_entry("misc", f"arxiv{found[1].replace('.', '')}", _arxiv_fields(found[1]))]
    return "\n\n".join([*entries, *references])


def _software(content: Mapping[str, Any]) -> str:
    fields = {"title": content["title"], "author": _authors(content["authors"]), "note": f"version {dskd.__version__}"}
    return _entry("misc", "dskd_harness", fields)


def _article(reference: Mapping[str, Any]) -> str:
    identifiers = (str(each.get("value", "")) for each in reference.get("identifiers", ()))
    arxiv = next((found[1] for each in identifiers if (found := _ARXIV.search(each))), "")
    first = reference["authors"][0].get("family-names", "")
    fields = {"title": reference["title"], "author": _authors(reference["authors"]), "year": str(reference["year"])}
    return _entry("misc", f"{first.lower()}{reference['year']}", fields | _arxiv_fields(arxiv))


def _arxiv_fields(number: str) -> dict[str, str]:
    if not number:
        return {}
    return {"eprint": number, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{number}"}


def _authors(authors: list[Mapping[str, str]]) -> str:
    names = (each.get("name") or f"{each['family-names']}, {each['given-names']}" for each in authors)
    return " and ".join(f"{{{name}}}" if ", " not in name else name for name in names)


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}}}"
