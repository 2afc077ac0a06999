"""perfkeep.wire.messages and .describe: one table, checked types, one description."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from perfkeep.wire.describe import describe, varlink_type
from perfkeep.wire.messages import INTERFACE, METHODS, CopyRing, Kind, Named, Slot, Start


def test_the_description_has_every_method_with_its_fields() -> None:
    text = describe()
    assert re.search(rf"^interface {re.escape(INTERFACE)}$", text, re.MULTILINE)
    for name, (parameters, result) in METHODS.items():
        found = re.search(rf"^method {name}\((.*)\) -> \((.*)\)$", text, re.MULTILINE)
        assert found, name
        for fields, struct in zip(found.groups(), (parameters, result), strict=True):
            names = re.findall(r"(?:^|, )(\w+): ", fields)
            assert names == list(struct.__struct_fields__), name


def test_every_type_that_the_description_uses_is_in_it() -> None:
    text = re.sub(r"#.*", "", describe())
    defined = set(re.findall(r"^type (\w+) ", text, re.MULTILINE))
    used = set(re.findall(r": (?:\?|\[\]|\[string\])*([A-Z]\w*)", text))
    assert used <= defined
    assert used == defined


def test_varlink_spells_optional_lists_and_choices_its_own_way() -> None:
    assert varlink_type(str | None, {}) == "?string"
    assert varlink_type(list[int], {}) == "[]int"
    assert varlink_type(dict[int, list[bool]], {}) == "[string][]bool"
    with pytest.raises(TypeError):
        varlink_type(set[int], {})


@pytest.mark.parametrize(
    ("struct", "value"),
    [
        (Named, {"name": ""}),
        (Named, {"name": "x" * 65}),
        (Slot, {"kind": 0, "cpu": 65536}),
        (Slot, {"kind": -1, "cpu": 0}),
        (CopyRing, {"index": -1}),
        (Kind, {"event": "e", "name": "e", "attr": "AAAA"}),
        (Kind, {"event": "e" * 4097, "name": "e", "attr": "A" * 88}),
        (Start, {"name": "x"}),
    ],
)
def test_values_that_make_no_sense_do_not_get_in(
    struct: type[msgspec.Struct], value: dict[str, Any]
) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(value), type=struct)
