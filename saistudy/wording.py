"""What is wrong with a parameter, in one sentence that says what to write instead; and a span of time."""

import difflib
import math

from saistudy.schema import Effective, Network, Recipe, Task

NESTED = {
    "network": Network,
    "task": Task,
    "train": Recipe,
}  # of large-batch; elsewhere train is Ultralytics'

EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "lower-case letters and digits joined by hyphens (a sha256: 64 hex)",
}


def clock(seconds: float) -> str:
    """A span of time, hours first: 1:02:03."""
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"


def near(word: str, words: dict[str, str]) -> str:
    """The end of a sentence about an unknown word: what was meant, or all that is known."""
    if close := difflib.get_close_matches(word, words, n=1):
        return f"; did you mean '{words[close[0]]}'?"
    return f"; known are {', '.join(sorted(words.values()))}."


def as_yaml_number(text: str) -> str:
    """`text`, which Python reads as a number, spelt so that YAML 1.1 reads it as that number too.

    YAML 1.1 wants a dot and a signed exponent in a float (yaml.org/type/float.html): `1e-3` and
    `1.0e3` are text, `1.0e-3` and `1.0e+3` are numbers.
    """
    mantissa, e, exponent = text.strip().lower().partition("e")
    if not e:
        return mantissa
    dotted = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{dotted}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def number(text: object) -> float | None:
    """The number that a text spells for Python, else None."""
    try:
        return float(text) if isinstance(text, str) else None
    except ValueError:
        return None


def hint(value: object, whole: bool = False) -> str:
    """The end of a sentence about a text where a (whole) number was expected."""
    if (meant := number(value)) is None or (whole and not meant.is_integer()):
        return "."
    if not math.isfinite(meant):
        return ": write a finite number."
    spelt = str(int(meant)) if whole else as_yaml_number(str(value))
    if spelt != value:
        return f": YAML reads {value} as text, write {spelt}."
    return f": write {spelt} without quotes."


def seen(value: object) -> str:
    """A value as a sentence names it."""
    return f"the text '{value}'" if isinstance(value, str) else f"{value!r}"


def _unknown(known: list[str], where: str, values: dict) -> str:
    if "." in where:
        model = NESTED.get(where.split(".")[0], Effective)
        fields = {field: field for field in model.model_fields}
        return f"unknown parameter '{where}'{near(where.split('.')[-1], fields)}"
    words = {str(key): f"train.{key}" for key in values.get("train") or {}}
    words |= {field: field for field in known}
    return f"unknown parameter '{where}'{near(where, words)}"


def sentence(known: list[str], error: dict, values: dict) -> str:
    """One pydantic error as a sentence; `known` are the fields that a wrong name may have meant."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown(known, where, values)
    if error["type"] == "missing":
        return f"parameter '{where}' is missing: give it in the parameters cell or the params file."
    if wanted := EXPECTED.get(error["type"]):
        numeric = error["type"] in ("int_type", "float_type")
        end = hint(error["input"], error["type"] == "int_type") if numeric else "."
        if wanted == "text" and isinstance(error["input"], int | float):
            end = f""": write it in quotes, '"{error["input"]}"' on a command line."""
        return f"{where} is {seen(error['input'])}, {wanted} was expected{end}"
    told = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where} is {seen(error['input'])}: {told}."
