"""A small world of generated tasks, so that the harness works without downloads.

Three families of tasks are generated from a seed, in the exact formats of real data sets:

=================  =========  ==========================================================================================
task               format     question
=================  =========  ==========================================================================================
`small_instruct`   Dolly      facts about people ("Name the pet and the city of Zoë."), scored with Rouge-L
`small_math`       GSM8K      word problems with small numbers, calculator annotations and a last line `#### 7`
`small_code`       HumanEval  the signature and docstring of a function; the body is generated and run against unit tests
=================  =========  ==========================================================================================

and, for each task, two sets to evaluate on, with right answers, and five to train on:

- **test**: its prompts occur in no other set;
- **validation**: the same, for choosing settings;
- **student**: few examples, some of them with wrong answers (`world.STUDENT_WRONG_SHARE`). A wrong answer has the form of a right
  one: another city, another sum, another operator;
- **clean**: some of the student's prompts, all with right answers;
- **prompts**: the student's prompts without answers, for training on what the teacher writes;
- **teacher**: many examples with right answers;
- **pretraining**: the same prompts with answers drawn without regard to the question. From them a model learns the form of the
  answers and nothing of the content, as a pretrained model knows a language and not the task.

The student's prompts occur in its own three sets alone.

Three tokenizers: byte-level BPE and a BPE like SentencePiece's with byte fallback, both built from the pretraining text, and one of
single bytes. The first two differ in size, merges, special tokens, and in how they treat spaces, newlines and characters outside
ASCII; the third shares few tokens with either.

Everything depends on the seed only, byte for byte. `SMALL_WORLD_VERSION` changes whenever anything generated changes.
The matrix `quick` trains models of this world; docs/small-world.md has its results.
"""

from harness.smallworld.world import (
    SMALL_WORLD_VERSION,
    instruction_of,
    prompt_of,
    test_docs,
    training_docs,
    validation_docs,
    write_world,
)

__all__ = [
    "SMALL_WORLD_VERSION",
    "instruction_of",
    "prompt_of",
    "test_docs",
    "training_docs",
    "validation_docs",
    "write_world",
]
