"""speedscope's own JSON: https://www.speedscope.app/file-format-schema.json"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def speedscope(
    name: str, stacks: Iterable[tuple[list[tuple[str, str]], int]], unit: str = "samples"
) -> dict[str, Any]:
    """One sampled profile, as the document to be written.

    Args:
        name: of the profile.
        stacks: (function, file) from the outermost to the innermost, and the weight of that.
        unit: of the weights; of time only "ns" is known.
    """
    numbers: dict[tuple[str, str], int] = {}
    samples, weights = [], []
    for frames, weight in stacks:
        samples.append([numbers.setdefault(one, len(numbers)) for one in frames])
        weights.append(weight)
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": name,
        "exporter": "perfkeep",
        "activeProfileIndex": 0,
        "shared": {
            "frames": [
                {"name": function, "file": file} if file else {"name": function}
                for function, file in numbers
            ]
        },
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": "nanoseconds" if unit == "ns" else "none",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }
