"""The report: what a run's folder holds, as one HTML page that needs nothing else.

    results.py    the records and where they lie
    scores.py     figures and costs: the leaderboard's rows, and each seed's
    differences.py  every method against the anchor, paired by item
    curves.py     what trainings logged, step by step
    alignment.py  how the two tokenizers of a pair align on its training set
    samples.py    prompts and what everybody answered
    document.py   all of it as one JSON document
    page.py       the document, the scripts and the styles as one file; assets/ holds the latter

A run's texts are a model's, and hostile: they are in the page as JSON alone, and scripts write them as text, never as HTML.
"""
