"""Which tokens of two tokenizers cover the same bytes? Prints a text in the tokens of both, pairs side by side.

python examples/cross_tokenizer.py --teacher models/teacher --student models/student "The quick brown fox"
"""

import argparse

from transformers import AutoTokenizer

from dskd import align_tokenizers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--teacher", required=True)
parser.add_argument("--student", required=True)
parser.add_argument("text")
arguments = parser.parse_args()

teacher, student = (AutoTokenizer.from_pretrained(folder) for folder in (arguments.teacher, arguments.student))
summary = align_tokenizers(teacher, student, [arguments.text])
rows = [
    tokenizer.convert_ids_to_tokens(tokenizer(arguments.text, add_special_tokens=False)["input_ids"])
    for tokenizer in (teacher, student)
]
((left, right),) = summary.pairs
for i, j in zip(left, right, strict=True):
    print(f"{rows[0][i]!r:>20}  {rows[1][j]!r}")
print(
    f"{summary.aligned} of {summary.student_tokens} student tokens have a partner; {summary.shared_vocabulary} shared tokens"
)
