"""GSM8K with five fixed examples, as lm-eval's gsm8k shows them. The card (README.md) has the protocol."""

from harness.tasks.gsm8k import TRAIN, FewShotGsm8k, training_examples

_IDS = (0, 1, 2, 3, 4)
_IDS_SHA256 = "8d8c57951fe32d0a06143553eba1509658b66ca68261ca2ad92dc8723bed2a3c"


class Gsm8k5Shot(FewShotGsm8k):
    name = "gsm8k_5shot"
    examples = TRAIN

    def shown_examples(self) -> str:
        return training_examples(_IDS, _IDS_SHA256)


TASK = Gsm8k5Shot
