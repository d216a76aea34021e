"""Answers to GSM8K and how each rule marks them."""

# Output, gold, whether strict and flexible (measured with lm-eval's gsm8k, version 3) and numeric hold it for right.
GOLDEN = [
    ("#### 18", "18", True, True, True),
    ("#### 1,800", "1800", True, True, True),
    ("#### $18", "18", False, True, True),
    ("#### 18.00", "18", False, False, True),
    ("#### -5", "-5", True, True, True),
    ("#### \N{MINUS SIGN}5", "-5", False, False, True),
    ("The answer is 18.", "18", False, True, True),
    ("so he makes $18.00 per day", "18", False, False, True),
    ("Total = 70,000.", "70000", False, True, True),
    ("That is 18, ok...", "18", False, False, True),
    ("It is 18%.", "18", False, True, True),
    (r"\boxed{18}", "18", False, True, True),
    ("18 eggs in 2 days", "18", False, False, False),
    ("The answer is 3/4", "0.75", False, False, True),
    ("x=5-10=-5.", "-5", False, True, True),
    ("#### 5\n\nQuestion: foo\n#### 9", "5", True, False, True),
    ("#### 5 apples", "5", True, True, True),
    ("#### 1.", "1", True, True, True),
]
