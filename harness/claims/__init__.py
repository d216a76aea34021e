"""Published claims, each in a few keys of a file, answered from records alone (docs/claims.md).

claims_file.py  the file: claims as they are written, and those that ship
evidence.py     the scores that records have of a method, and which pairs have one vocabulary
answers.py      the tests of a file, and the answer to each claim
missing.py      the commands that make missing records
render.py       answers as text, Markdown and JSON
"""
