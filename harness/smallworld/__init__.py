"""A small world of generated tasks, so that the harness works where nothing can be downloaded.

Three task families are generated from a seed, in the exact formats of the real data sets they stand for:

=================  =========  ==========================================================================================
task               format     what is asked
=================  =========  ==========================================================================================
`small_instruct`   Dolly      facts about people ("Name the pet and the city of Zoë."), scored with Rouge-L
`small_math`       GSM8K      word problems with small numbers, calculator annotations and a last line `#### 7`
`small_code`       HumanEval  a function's signature and docstring; the body is asked for and run against unit tests
=================  =========  ==========================================================================================

and, for each task, four sets:

- **test**: right answers. Its prompts occur in no other set;
- **student**: few examples, and part of their answers are wrong (`world.STUDENT_WRONG_SHARE`). A wrong answer has the form of a
  right one: another city, a sum that is off, another operator. Its prompts occur in no other set;
- **teacher**: many examples with right answers;
- **pretraining**: as many, with answers drawn without regard to the question. A model learns the form of the answers from them and
  none of the content, as a pretrained model knows a language and not the task.

Two tokenizers of different kinds are built from the pretraining text: byte-level BPE, and BPE in SentencePiece's manner with byte
fallback. They differ in size, merges, special tokens and in what they do with spaces, newlines and characters outside ASCII.

Everything is a function of the seed, byte for byte. `SMALL_WORLD_VERSION` changes whenever anything generated changes.
The recipe that trains models of this world is the matrix `quick`; what it reaches stands in docs/small-world.md.
"""

from harness.smallworld.world import SMALL_WORLD_VERSION, instruction_of, prompt_of, test_docs, write_world

__all__ = ["SMALL_WORLD_VERSION", "instruction_of", "prompt_of", "test_docs", "write_world"]
