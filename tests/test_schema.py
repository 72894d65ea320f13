"""A signature is a schema: strict types, bounds, and errors that say what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from bench.errors import PluginError
from bench.schema import RESERVED, Option, Table, describe, options_model, validate

if TYPE_CHECKING:
    from not_installed import NotThere  # type: ignore[import-not-found]  # nor need it be there

Size = Annotated[int, Field(ge=1, le=512, description="pixels")]


def toy(
    spec: Any,
    *,
    depth: int = 18,
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    wide: bool = False,
    name_of_kind: str = "a",
    size: Size | tuple[Size, Size] = 8,
    mode: Literal["fast", "exact"] = "fast",
    modes: tuple[Literal["x", "y"], ...] = (),
    pair: tuple[float, float] = (0.9, 1.1),
    folder: Path = Path(),
    shares: dict[str, float] = {},  # noqa: B006 - a plugin may
    layers: int | None = None,
) -> NotThere:
    """A plugin with every type of option."""
    raise NotImplementedError(spec, depth, rate, wide, name_of_kind, size, mode, modes, pair, folder, shares, layers)


MODEL = options_model("models", toy)


def checked(**table: Any) -> dict[str, Any]:
    values, problems = validate(MODEL, table, "model")
    assert problems == []
    return values


def problem(**table: Any) -> str:
    values, problems = validate(MODEL, table, "model")
    assert values == {}
    [line] = problems
    return line


def test_defaults_are_filled_in() -> None:
    assert checked() == {
        "depth": 18,
        "rate": 0.5,
        "wide": False,
        "name_of_kind": "a",
        "size": 8,
        "mode": "fast",
        "modes": (),
        "pair": (0.9, 1.1),
        "folder": Path(),
        "shares": {},
        "layers": None,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": 0}, {"rate": 0.0}),
        ({"pair": [1, 2]}, {"pair": (1.0, 2.0)}),
        ({"size": [3, 4]}, {"size": (3, 4)}),
        ({"modes": ["x", "y"]}, {"modes": ("x", "y")}),
        ({"folder": "a/b"}, {"folder": Path("a/b")}),
        ({"shares": {"a": 0.5}}, {"shares": {"a": 0.5}}),
        ({"layers": 3}, {"layers": 3}),
    ],
)
def test_toml_becomes_what_the_signature_says(given: dict[str, Any], expected: dict[str, Any]) -> None:
    values = {name: checked(**given)[name] for name in given}
    assert values == expected
    assert [type(value) for value in values.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"depth": "3"}, 'model.depth: input should be a valid integer, but "3" was given'),
        ({"depth": 3.0}, "model.depth: input should be a valid integer, but 3.0 was given"),
        ({"depth": True}, "model.depth: input should be a valid integer, but true was given"),
        ({"depth": [3]}, "model.depth: input should be a valid integer, but [3] was given"),
        ({"rate": True}, "model.rate: input should be a valid number, but true was given"),
        ({"rate": "0.5"}, 'model.rate: input should be a valid number, but "0.5" was given'),
        ({"wide": 1}, "model.wide: input should be a valid boolean, but 1 was given"),
        ({"wide": "true"}, 'model.wide: input should be a valid boolean, but "true" was given'),
        ({"name_of_kind": 1}, "model.name_of_kind: input should be a valid string, but 1 was given"),
        ({"layers": "3"}, 'model.layers: input should be a valid integer, but "3" was given'),
        ({"modes": "x"}, 'model.modes: input should be a valid array, but "x" was given'),
        ({"rate": 1}, "model.rate: input should be less than 1, but 1 was given"),
        ({"rate": -0.1}, "model.rate: input should be greater than or equal to 0, but -0.1 was given"),
        ({"mode": "fats"}, "model.mode: input should be 'fast' or 'exact', but \"fats\" was given"),
        ({"modes": ["x", "z"]}, "model.modes: input should be 'x' or 'y', but \"z\" was given"),
        ({"depht": 3}, 'model.depht: unknown key; did you mean "depth"?'),
    ],
)
def test_a_problem_names_key_fault_and_value(given: dict[str, Any], expected: str) -> None:
    assert problem(**given) == expected


def test_an_unknown_key_without_a_near_miss_lists_what_is_allowed() -> None:
    expected = "model.qqq: unknown key; allowed: depth, folder, layers, mode, modes, name_of_kind, "
    assert problem(qqq=3).startswith(expected)


def test_a_union_says_what_is_allowed_together() -> None:
    assert problem(size="large").startswith("model.size: must be int")
    assert "array of 2 int" in problem(size="large")
    assert problem(size=[1, 2, 3]).endswith("but [1, 2, 3] was given")


def test_an_array_of_another_length_is_no_missing_key() -> None:
    assert problem(pair=[1.0]) == "model.pair: must be array of 2 float, but [1.0] was given"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_is_finite(value: float) -> None:
    assert problem(pair=[0.0, value]).startswith("model.pair: ")


def test_all_problems_are_told_at_once() -> None:
    _, problems = validate(MODEL, {"depth": "3", "rate": 2, "wid": True}, "model")
    assert [line.partition(":")[0] for line in problems] == ["model.depth", "model.rate", "model.wid"]


def test_a_required_option_that_is_not_given() -> None:
    def plugin(spec: Any, *, variant: str) -> None:
        raise NotImplementedError(spec, variant)

    assert validate(options_model("models", plugin), {}, "model")[1] == ["model.variant: required, but not given"]


def test_values_are_frozen_and_unknown_keys_forbidden() -> None:
    class Toy(Table):
        size: int = 3

    with pytest.raises(ValidationError, match="frozen"):
        Toy().size = 4
    with pytest.raises(ValidationError, match="Extra inputs"):
        Toy(sise=4)  # type: ignore[call-arg]  # the fault
    assert validate(Toy, {"size": 4}, "") == ({"size": 4}, [])
    assert validate(Toy, {"size": "4"}, "")[1] == ['size: input should be a valid integer, but "4" was given']


def test_options_are_described_in_words() -> None:
    described = {option.name: option for option in describe(MODEL)}
    assert described["depth"] == Option("depth", "int", "18")
    assert (described["rate"].type, described["rate"].default) == ("float >= 0, < 1", "0.5")
    assert (described["wide"].type, described["wide"].default) == ("boolean", "false")
    assert described["mode"] == Option("mode", '"fast" | "exact"', '"fast"')
    assert described["modes"].type == 'array of "x" | "y"'
    assert (described["pair"].type, described["pair"].default) == ("array of 2 float", "[0.9, 1.1]")
    assert described["size"].type.replace(" >= 1, <= 512", "") == "int | array of 2 int"
    assert (described["layers"].type, described["layers"].default) == ("int", "")

    def plugin(*, count: Size) -> None:
        raise NotImplementedError(count)

    assert describe(options_model("augmentations", plugin)) == (
        Option("count", "int >= 1, <= 512", "required", "pixels"),
    )


# Tables inside of tables


class Layer(Table):
    width: Size = Field(description="units")
    kernel: int | tuple[int, int] = 3
    window: tuple[int, int] = (1, 1)


def nested(
    spec: Any,
    *,
    layers: tuple[Layer, ...] = (Layer(width=4), Layer(width=8, kernel=5)),
    last: Layer = Layer(width=2),  # noqa: B008 - it is frozen
    either: Layer | tuple[Layer, ...] | None = None,
) -> None:
    raise NotImplementedError(spec, layers, last, either)


NESTED = options_model("models", nested)


def nested_problems(**table: Any) -> list[str]:
    return validate(NESTED, table, "model")[1]


def test_tables_of_an_array_arrive_validated() -> None:
    values, problems = validate(NESTED, {"layers": [{"width": 3}, {"width": 4, "kernel": [1, 2]}]}, "model")
    assert problems == []
    assert values["layers"] == (Layer(width=3), Layer(width=4, kernel=(1, 2)))
    assert values["last"] == Layer(width=2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"layers": [{"width": 1}, {"width": 1, "kernal": 3}]}, 'layers.1.kernal: unknown key; did you mean "kernel"?'),
        ({"layers": [{"width": 1, "last": 3}]}, "layers.0.last: unknown key; allowed: kernel, width, window"),
        ({"layers": [{"width": 1}, {}]}, "layers.1.width: required, but not given"),
        ({"layers": [{"width": "1"}]}, 'layers.0.width: input should be a valid integer, but "1" was given'),
        ({"layers": [{"width": 0}]}, "layers.0.width: input should be greater than or equal to 1, but 0 was given"),
        ({"layers": [{"width": 1, "window": [1]}]}, "layers.0.window: must be array of 2 int, but [1] was given"),
        (
            {"layers": [{"width": 1, "kernel": "a"}]},
            'layers.0.kernel: must be int | array of 2 int, but "a" was given',
        ),
        ({"layers": [3]}, "layers.0: must be table {width, kernel, window}, but 3 was given"),
        ({"layers": 3}, "layers: input should be a valid array, but 3 was given"),
        ({"last": {"width": 1, "widht": 2}}, 'last.widht: unknown key; did you mean "width"?'),
        ({"last": 3}, "last: must be table {width, kernel, window}, but 3 was given"),
        (
            {"either": 3},
            "either: must be table {width, kernel, window} | array of tables {width, kernel, window}, but 3 was given",
        ),
    ],
)
def test_a_problem_in_an_inner_table_has_the_whole_key(given: dict[str, Any], expected: str) -> None:
    assert nested_problems(**given) == [f"model.{expected}"]


def test_inner_tables_are_described_key_by_key() -> None:
    described = {option.name: option for option in describe(NESTED)}
    assert described["layers"].type == "array of tables {width, kernel, window}"
    assert described["layers"].default == '[{"width": 4}, {"width": 8, "kernel": 5}]'
    assert described["layers.N.width"] == Option("layers.N.width", "int >= 1, <= 512", "required", "units")
    assert described["last"] == Option("last", "table {width, kernel, window}", '{"width": 2}')
    assert described["last.kernel"] == Option("last.kernel", "int | array of 2 int", "3")


# Signatures that are no schema


def splat(spec: Any, *options: int) -> None:
    raise NotImplementedError(spec, options)


def splat_keywords(spec: Any, **options: int) -> None:
    raise NotImplementedError(spec, options)


def positional(spec: Any, depth: int = 3) -> None:
    raise NotImplementedError(spec, depth)


def untyped(spec: Any, *, depth=3) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the fault
    raise NotImplementedError(spec, depth)


def without_spec() -> None:
    raise NotImplementedError


def keyword_spec(*, spec: Any) -> None:
    raise NotImplementedError(spec)


def for_type_checkers_only(spec: Any, *, thing: NotThere) -> None:
    raise NotImplementedError(spec, thing)


def underscored(spec: Any, *, _depth: int = 3) -> None:
    raise NotImplementedError(spec, _depth)


def of_an_odd_type(spec: Any, *, lock: Option | complex | slice = 3j) -> None:
    raise NotImplementedError(spec, lock)


def shadowing(spec: Any, *, copy: bool = True) -> None:
    raise NotImplementedError(spec, copy)


def clashing(spec: Any, *, model_dump: bool = True) -> None:
    raise NotImplementedError(spec, model_dump)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (splat, r"splat: takes \*options: a schema needs named options"),
        (splat_keywords, r"takes \*options"),
        (positional, "option 'depth' must be keyword-only"),
        (untyped, "option 'depth' has no type"),
        (without_spec, "takes 0 parameters, the core hands over 1"),
        (keyword_spec, "first parameter 'spec' must be positional"),
        (for_type_checkers_only, "signature cannot be read: name 'NotThere' is not defined"),
        (underscored, "_depth"),
        (of_an_odd_type, "slice"),
        (shadowing, "copy"),
        (clashing, "model_dump"),
    ],
)
def test_a_signature_that_is_no_schema_is_a_fault_of_the_plugin(plugin: Callable[..., Any], reason: str) -> None:
    with pytest.raises(PluginError, match=reason) as error:
        options_model("models", plugin)
    assert error.value.hint


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in RESERVED.items() for key in keys])
def test_keys_of_the_core_are_reserved(kind: str, key: str) -> None:
    names: dict[str, Any] = {}
    first = "" if kind == "augmentations" else "first, "
    exec(f"def plugin({first}*, {key}: str = ''): ...", names)  # noqa: S102 - the name varies
    with pytest.raises(PluginError, match=f"option '{key}' is a key of the core"):
        options_model(kind, names["plugin"])


def test_all_faults_of_a_signature_are_told_at_once() -> None:
    def plugin(spec: Any, depth: int = 3, *, weights: str = "", wide=False) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the fault
        raise NotImplementedError(spec, depth, weights, wide)

    with pytest.raises(PluginError, match=r"'depth' must be keyword-only.*; option 'weights' is a key.*'wide' has no"):
        options_model("models", plugin)


def test_the_core_reads_only_the_types_of_options() -> None:
    """What a plugin returns and takes may be typed for type checkers alone."""

    def plugin(spec: NotThere, *, depth: int = 3) -> NotThere:
        raise NotImplementedError(spec, depth)

    assert validate(options_model("models", plugin), {}, "model") == ({"depth": 3}, [])
