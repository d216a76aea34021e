r"""Ways in which chat models state a number, for every task whose answer is one: `NUMBER_FORMS` maps a name to a function.

A form takes the number as plain text ("1800", "-5", "0.25") and returns a whole answer whose number is that one, and which holds
others: steps, headings, checks, offers. Add a form here and every number task is tested with it.
"""

from __future__ import annotations

from collections.abc import Callable

Form = Callable[[str], str]


def _template(text: str) -> Form:
    return lambda number: text.replace("@", number)


_GROUP = 3


def grouped(number: str, separator: str) -> str:
    """The number with its thousands separated, as it is where there are none; of a fraction, too."""
    if "/" in number:
        return number
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, point, rest = digits.partition(".")
    groups = []
    while len(whole) > _GROUP:
        whole, groups = whole[:-_GROUP], [whole[-_GROUP:], *groups]
    return sign + separator.join([whole, *groups]) + point + rest


def _grouped(separator: str, text: str = "The answer is @.") -> Form:
    return lambda number: text.replace("@", grouped(number, separator))


def _in_digits(zero: str, text: str) -> Form:
    digits = {ord("0") + count: ord(zero) + count for count in range(10)}
    return lambda number: text.replace("@", number.translate(digits))


def _scientific(text: str, power: str) -> Form:
    def form(number: str) -> str:
        sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
        whole, _, rest = digits.partition(".")
        mantissa = f"{whole[0]}.{(whole[1:] + rest) or '0'}"
        return text.replace("@", sign + mantissa + power.replace("#", str(len(whole) - 1)))

    return form


def _fraction(text: str) -> Form:
    """The number over one, in a notation of fractions: its digits over a power of ten."""

    def form(number: str) -> str:
        whole, _, rest = number.partition(".")
        return text.replace("@", whole + rest).replace("#", f"1{'0' * len(rest)}")

    return form


_STEPS = "First, 2 boxes of 3 eggs are 2 * 3 = 6 eggs.\nThen 5 more are added, which is 6 + 5 = 11.\n"

NUMBER_FORMS: dict[str, Form] = {
    "a mark": _template(_STEPS + "#### @"),
    "a mark in bold": _template(_STEPS + "#### **@**"),
    "a mark and a currency": _template(_STEPS + "#### $@"),
    "a mark and a unit": _template(_STEPS + "#### @ eggs"),
    "a mark and a box": _template(_STEPS + "#### \\boxed{@}"),
    "a mark, then an offer": _template(_STEPS + "#### @\n\nI hope this helps! Do you have 2 more questions?"),
    "a mark with its number on the next line": _template(_STEPS + "####\n@"),
    "steps under headings": _template(
        f"#### Step 1: Count the 2 boxes\n2 * 3 = 6\n\n#### Step 2: Add 5\n{_STEPS}\n#### Step 3: Total\nThe total is @."
    ),
    "numbered headings": _template(f"### 1. Boxes\n{_STEPS}\n### 2. Total\nShe has @ eggs."),
    "numbered marks as headings": _template(f"#### 1. Count the boxes\n{_STEPS}\n#### 2. Find the total\n**@**"),
    "a heading that says answer": _template(f"## Solution\n{_STEPS}\n## Answer\n\nShe has **@** eggs in 2 boxes."),
    "bold final answer above a box": _template(_STEPS + "**Final Answer**\n\n\\[\n\\boxed{@}\n\\]"),
    "a box, then a check": _template(_STEPS + "So it is \\boxed{@}. Check: 3 * 6 = 18, so 2 more than 16."),
    "a box with a unit": _template(_STEPS + "$$\\boxed{@ \\text{ m}^2}$$ for 2 boxes"),
    "a box with a variable": _template(_STEPS + "\\[ \\boxed{x = @} \\]"),
    "a box with text": _template(_STEPS + "\\boxed{\\text{@ dollars}}"),
    "a box with a currency": _template(_STEPS + "$\\boxed{\\$@}$ in 7 days"),
    "two boxes": _template("Perhaps \\boxed{7}. No: 6 + 5 is \\boxed{@}, as there are 2."),
    "a phrase": _template(_STEPS + "The answer is @"),
    "a phrase with a full stop": _template(_STEPS + "The answer is @."),
    "a phrase in bold": _template(_STEPS + "**The answer is @.**"),
    "a phrase and a reason": _template(_STEPS + "Therefore, the final answer is @, which is 2 more than before."),
    "a phrase and a list": _template(
        "The answer is @.\n\n1. There are 2 boxes.\n2. Each has 3 eggs.\n3. Then 5 are added."
    ),
    "a phrase and an equation": _template(_STEPS + "So the answer is @ + 0 = @."),
    "a phrase with the question in it": _template(_STEPS + "The answer to the question about 2 boxes is @ eggs."),
    "a label": _template(_STEPS + "Answer: @"),
    "a bold label": _template(_STEPS + "**Answer:** @"),
    "a bold label with dollars": _template(_STEPS + "**Answer: $@**\n\nLet me know if you have 3 other problems!"),
    "a label above": _template(_STEPS + "**Final Answer:**\n@ eggs"),
    "a label and a sentence": _template(_STEPS + "Final answer: Each of the 2 friends gets @ eggs."),
    "a label in a tag": _template(f"<think>{_STEPS}Perhaps 7? #### 7</think>\n<answer>@</answer>"),
    "a label in JSON": _template('{"reasoning": "2 boxes of 3, and 5", "answer": "@"}'),
    "a number first": _template("**@**\n\nExplanation: 2 boxes of 3 eggs are 6, and 5 more."),
    "a plain number first": _template("@\n\nThere are 2 boxes of 3 eggs, and 5 more."),
    "a number alone": _template("@"),
    "bold in a sentence": _template(_STEPS + "So she has **@** eggs in 2 boxes."),
    "a bold phrase in a sentence": _template(_STEPS + "So she has **@ eggs** after 3 days."),
    "code in a sentence": _template(_STEPS + "So she has `@`."),
    "an equation at the end": _template(_STEPS + "11 + 7 = @"),
    "an equation with a unit": _template(_STEPS + "She has 11 + 7 = @ eggs in 2 boxes."),
    "a variable": _template(_STEPS + "Thus x = @"),
    "display mathematics": _template(_STEPS + "\\[ 11 + 7 = @ \\]"),
    "aligned equations": _template("\\begin{align*}\n2 \\times 3 &= 6 \\\\\n6 + 5 &= @ \\\\\n\\end{align*}"),
    "a list of steps": _template("1. There are 2 boxes.\n2. Each has 3 eggs.\n3. In total that makes @.\n4. Done."),
    "a table": _template("| What | How many |\n|---|---|\n| boxes | 2 |\n| **Total** | **@** |"),
    "a sentence with a unit's exponent": _template(_STEPS + "So the area is @ m^2."),
    "a sentence with a written exponent": _template(_STEPS + "So the area is @ ft2."),
    "a sentence with a superscript": _template(_STEPS + "So the area is @ cm²."),
    "a sentence with a percent sign": _template(_STEPS + "So it is @%."),
    "a sentence with euros": _template(_STEPS + "So it costs €@."),
    "a sentence with rupees": _template(_STEPS + "So it costs ₹@ in 2 shops?\n\nYes, ₹@."),
    "a sentence with a code of a currency": _template(_STEPS + "So it costs USD @."),
    "a remark in brackets": _template(_STEPS + "So there are @ eggs (2 boxes of 3, and 5 more)."),
    "between two others": _template(_STEPS + "It is between 1 and 3000000000000, so @."),
    "an offer after the answer": _template(
        _STEPS + "She has @ eggs.\n\nI hope this helps! If you have 2 more questions, ask."
    ),
    "a note after the answer": _template(_STEPS + "She has @ eggs.\n\nNote: I took 30 days for 1 month."),
    "a check after the answer": _template(_STEPS + "She has @ eggs.\n\n**Check:** 11 - 5 = 6, and 6 / 3 = 2."),
    "a question that the model invents": _template(
        _STEPS + "She has @ eggs.\n\nQuestion: Tom has 4 apples.\nAnswer: 9"
    ),
    "an invented Q and A": _template(_STEPS + "#### @\n\nQ: What is 2 + 2?\nA: 4\n#### 4"),
    "an invented turn": _template(
        _STEPS + "The answer is @.\n\nHuman: And with 3 more?\n\nAssistant: The answer is 21."
    ),
    "an invented turn of a template": _template("The answer is @.<|im_end|>\n<|im_start|>user\nAnd 3 more?"),
    "the question repeated": _template(
        f"**Problem:** She has 2 boxes.\n\n**Solution:** {_STEPS}She has @ eggs.\n\n**Problem:** 9?"
    ),
    "reasoning before": _template("<think>\nMaybe \\boxed{7}?\n</think>\n\nShe has @ eggs."),
    "a draft before": _template("Draft: the answer is 7.\nNo, that misses 5 eggs.\nSo the answer is @."),
    "thousands by comma": _grouped(","),
    "thousands by comma after a mark": _grouped(",", "#### @"),
    "thousands by space": _grouped(" "),
    "thousands by no-break space": _grouped("\N{NO-BREAK SPACE}"),
    "thousands by narrow no-break space": _grouped("\N{NARROW NO-BREAK SPACE}", "So she has @ eggs."),
    "thousands by thin space": _grouped("\N{THIN SPACE}"),
    "thousands by apostrophe": _grouped("'"),
    "thousands by typographic apostrophe": _grouped("\N{RIGHT SINGLE QUOTATION MARK}"),
    "thousands by LaTeX's comma": _grouped("{,}", "The total is $@$."),
    "thousands by LaTeX's comma without space": _grouped(",\\!", "\\boxed{@}"),
    "thousands by LaTeX's thin space": _grouped("\\,", "\\boxed{@}"),
    "full-width digits": _in_digits("\N{FULLWIDTH DIGIT ZERO}", "答えは@です。"),
    "Arabic digits": _in_digits("\N{ARABIC-INDIC DIGIT ZERO}", "The answer is @."),
    "Devanagari digits": _in_digits("\N{DEVANAGARI DIGIT ZERO}", "The answer is @."),
    "scientific notation": _scientific("The answer is @.", "e#"),
    "powers of ten": _scientific("The answer is @.", " × 10^#"),
    "powers of ten in LaTeX": _scientific("$\\boxed{@}$", " \\times 10^{#}"),
    "powers of ten with a dot": _scientific("So it is @.", "·10^#"),
    "a fraction": _fraction("The answer is @/#."),
    "a fraction in LaTeX": _fraction("\\boxed{\\frac{@}{#}}"),
    "a typeset fraction": _fraction("The answer is $\\dfrac{@}{#}$."),
    "a fraction without braces": _fraction("The answer is $\\frac @ #$."),
}

# Forms of numbers that are written in digits and a point; a fraction is not.
DECIMALS_ONLY = [
    name for name in NUMBER_FORMS if name.startswith(("scientific", "powers of ten", "a fraction", "a typeset"))
]
