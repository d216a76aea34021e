"""Writes tables of texts as Markdown, LaTeX or HTML, with a legend and notes under them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from harness.tables.grid import Bold, Grid


def markdown_of(grids: Sequence[Grid], legend: str, notes: Sequence[str]) -> str:
    """Markdown tables with padded columns, so that they also read well as plain text."""
    parts = []
    for grid in grids:
        cells = [[_md_cell(text) for text in line] for line in (grid.header, *grid.lines)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(grid.header))]
        padded = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
        rule = "-|-".join("-" * width for width in widths)
        table = "\n".join([f"| {padded[0]} |", f"|-{rule}-|", *(f"| {line} |" for line in padded[1:])])
        note = f"\n{md_escape(grid.note)}\n" if grid.note else ""
        parts.append(f"### {md_escape(grid.title)}\n\n{table}\n{note}")
    parts.append(legend + "\n")
    if notes:
        parts.append("".join(f"- {md_escape(note)}\n" for note in notes))
    return "\n".join(parts)


def _md_cell(text: str) -> str:
    escaped = md_escape(text)
    return f"**{escaped}**" if isinstance(text, Bold) else escaped


def md_escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def latex_of(grids: Sequence[Grid], legend: str, notes: Sequence[str]) -> str:
    """One booktabs tabular per table."""
    parts = []
    for grid in grids:
        lines = [" & ".join(map(_tex_cell, line)) + r" \\" for line in grid.lines]
        header = " & ".join(map(_tex_escape, grid.header)) + r" \\"
        columns = "l" * len(grid.header)
        body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *lines])
        title = f"% {grid.title}\n" + (f"% {grid.note}\n" if grid.note else "")
        parts.append(f"{title}{body}\n\\bottomrule\n\\end{{tabular}}\n")
    return "\n".join(parts) + "".join(f"% {note}\n" for note in (legend, *notes))


def _tex_cell(text: str) -> str:
    escaped = _tex_escape(text)
    return rf"\textbf{{{escaped}}}" if isinstance(text, Bold) else escaped


_TEX = {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--", "±": r"$\pm$", "→": r"$\to$", "≥": r"$\geq$"}


def _tex_escape(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text).replace("->", r"$\to$")


def html_of(grids: Sequence[Grid], legend: str, notes: Sequence[str]) -> str:
    """A complete page without scripts or external files."""
    parts = []
    for grid in grids:
        head = "".join(f"<th>{html.escape(text)}</th>" for text in grid.header)
        body = "\n".join("<tr>" + "".join(map(_html_cell, line)) + "</tr>" for line in grid.lines)
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        note = f"\n<p>{html.escape(grid.note)}</p>" if grid.note else ""
        parts.append(f"<h2>{html.escape(grid.title)}</h2>\n{table}{note}")
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    style = "body{font-family:sans-serif}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em}"
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Leaderboard</title>'
        f"<style>{style}</style></head>\n<body>\n<h1>Leaderboard</h1>\n"
        + "\n".join(parts)
        + f"\n<p>{html.escape(legend)}</p>\n<ul>{listed}</ul>\n</body>\n</html>\n"
    )


def _html_cell(text: str) -> str:
    escaped = html.escape(text)
    return f"<td><b>{escaped}</b></td>" if isinstance(text, Bold) else f"<td>{escaped}</td>"
