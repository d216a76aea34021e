"""The report: a run as one self-contained HTML page.

    results.py    the records and their folders
    scores.py     scores: the rows of the leaderboard, with the score of each seed
    differences.py  every method against the anchor, paired by item
    curves.py     the logs of the trainings
    alignment.py  how the two tokenizers of a pair align on its training set
    claims.py     answers to published claims
    samples.py    prompts and completions
    document.py   all of this as one JSON document
    page.py       the document, scripts and styles as one file; scripts and styles are in assets/

Model output is untrusted: it is in the page as JSON only, and scripts show it as text, never as HTML.
"""
