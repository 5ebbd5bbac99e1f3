"""A second reading of RFC 9110 §14, to hold `proxy.web.ranges` against.

Belongs here: the RFC's grammar as one regular expression, ranges as sets of byte positions, and
the design's choices where the RFC leaves one. Slow and plain on purpose. Must not know: anything
of the first reading.
"""

import re
from typing import Literal

OWS = r"[ \t]*"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
INT_RANGE = r"[0-9]+-[0-9]*"
SUFFIX_RANGE = r"-[0-9]+"
OTHER_RANGE = r"[\x21-\x2b\x2d-\x7e]+"
RANGE_SPEC = f"(?:{INT_RANGE}|{SUFFIX_RANGE}|{OTHER_RANGE})"
# §5.6.1.2, what a recipient accepts for 1#element: [ element ] *( OWS "," OWS [ element ] ).
# Blanks before the first and after the last element are let through as well.
RANGE_SET = f"{OWS}(?:{RANGE_SPEC})?(?:{OWS},{OWS}(?:{RANGE_SPEC})?)*{OWS}"
RANGES_SPECIFIER = re.compile(f"(?P<unit>{TOKEN})=(?P<set>{RANGE_SET})")

MAX_RANGES = 16
"""The design's bound on ranges."""
MAX_ELEMENTS = 32
"""Elements of the list, empty ones included: "a reasonable number" (§5.6.1.2)."""

Answer = Literal["whole", "unsatisfiable"] | list[list[int]]


def answer(field: str, length: int) -> Answer:
    """Say what a Range field gets from a clip of `length` bytes: the positions of each part."""
    specs = byte_specs(field)
    if specs == []:
        return "whole"
    if any(is_invalid(spec) for spec in specs):
        return "unsatisfiable"
    parts = [part for spec in specs if (part := positions(spec, length)) != []]
    if parts == []:
        return "unsatisfiable"
    if len(parts) > 1 and is_excessive(parts, length):
        return "whole"
    return parts


def byte_specs(field: str) -> list[str]:
    """Read a field by the grammar; nothing if it is not a set of byte ranges within bounds."""
    specifier = RANGES_SPECIFIER.fullmatch(field)
    if specifier is None or specifier["unit"].lower() != "bytes":
        return []
    elements = [element.strip(" \t") for element in specifier["set"].split(",")]
    specs = [element for element in elements if element != ""]
    if len(specs) > MAX_RANGES or len(elements) > MAX_ELEMENTS:
        return []
    # An other-range is good grammar, but means nothing in bytes.
    known = [spec for spec in specs if re.fullmatch(f"{INT_RANGE}|{SUFFIX_RANGE}", spec)]
    return specs if known == specs else []


def is_invalid(spec: str) -> bool:
    """§14.1.1: an int-range is invalid if its last-pos is less than its first-pos."""
    first, last = spec.split("-")
    return first != "" and last != "" and int(last) < int(first)


def positions(spec: str, length: int) -> list[int]:
    """§14.1.2: the bytes that a range names, of those that there are."""
    clip = list(range(length))
    first, last = spec.split("-")
    if first == "":
        return [] if int(last) == 0 else clip[-int(last) :]
    return [
        position
        for position in clip
        if position >= int(first) and (last == "" or position <= int(last))
    ]


def is_excessive(parts: list[list[int]], length: int) -> bool:
    """The design: never more bytes than the clip. §14.2: not more than two that overlap."""
    overlapping = 0
    for index, part in enumerate(parts):
        others = {position for other in parts[:index] + parts[index + 1 :] for position in other}
        if others.intersection(part):
            overlapping += 1
    return sum(len(part) for part in parts) > length or overlapping > 2
