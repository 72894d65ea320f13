"""The space of a search: forms, problems, what trials draw, sizes, and what two spaces have otherwise."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from bench.errors import RecipeError
from bench.recipe import Recipe, changed, parse
from bench.search.space import Space, parse_space, space_from_json

BASE = """
[dataset]
name = "digits"

[data]
size = 16

[model]
name = "cnn"

[[augment]]
name = "affine"
degrees = 10.0

[optimizer]
name = "sgd"
"""

CONDITIONAL = """
[search.space]
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"train.batch_size" = {choice = [16, 32, 64]}
"augment.0.degrees" = {float = [0, 20], step = 5}

[search.space.model]
choice = [
  {name = "lenet", dropout = {float = [0.0, 0.5]}, batch_norm = {choice = [true, false]}},
  {name = "cnn", channels = {choice = [[8, 16], [16, 32, 64]]}, convs_per_block = {int = [1, 3]}},
  {name = "linear"},
]
"""


def recipe_of(space: str, base: str = BASE) -> Recipe:
    return parse(base + space, path=Path("recipes/toy.toml"))


def space_of(space: str) -> Space:
    return parse_space(recipe_of(f"[search.space]\n{space}"))


def problems(space: str) -> tuple[str, ...]:
    """All that parse_space and check tell, as they are told together."""
    recipe = recipe_of(f"[search.space]\n{space}")
    with pytest.raises(RecipeError) as error:
        parse_space(recipe).check(recipe)
    assert error.value.hint
    assert f"{len(error.value.problems)} problem" in str(error.value)
    return error.value.problems


def trials(space: Space, number: int = 60, seed: int = 0) -> Iterator[tuple[optuna.Trial, dict[str, Any]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for _ in range(number):
        trial = study.ask()
        yield trial, space.suggest(trial)


# Forms


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ('"train.epochs" = {int = [1, 9]}', ("train.epochs", "1 to 9", "9")),
        ('"train.epochs" = {int = [1, 9], step = 4}', ("train.epochs", "1 to 9 in steps of 4", "3")),
        ('"train.epochs" = {int = [1, 9], log = true}', ("train.epochs", "1 to 9, log", "9")),
        ('"train.ema" = {float = [0, 0.9]}', ("train.ema", "0.0 to 0.9", "continuous")),
        ('"train.ema" = {float = [0.1, 0.3], step = 0.1}', ("train.ema", "0.1 to 0.3 in steps of 0.1", "3")),
        ('"optimizer.lr" = {float = [1e-4, 1], log = true}', ("optimizer.lr", "0.0001 to 1.0, log", "continuous")),
        ('"data.resize" = {choice = ["squash", "crop"]}', ("data.resize", "one of squash, crop", "2")),
        ('"train.batch_size" = {choice = [8, 16]}', ("train.batch_size", "one of 8, 16", "2")),
        ('"data.size" = {choice = [16, [16, 24]]}', ("data.size", "one of 16, [16, 24]", "2")),
    ],
)
def test_forms_in_words(spec: str, expected: tuple[str, str, str]) -> None:
    assert space_of(spec).rows() == [expected]


def test_keys_may_be_quoted_or_tables_in_tables() -> None:
    nested = space_of("optimizer.lr = {float = [1e-4, 1e-1]}\n[search.space.train]\nepochs = {int = [1, 3]}")
    assert nested == space_of('"train.epochs" = {int = [1, 3]}\n"optimizer.lr" = {float = [1e-4, 1e-1]}')


def test_conditional_ones_follow_their_choice_in_the_table() -> None:
    names = [name for name, *_ in parse_space(recipe_of(CONDITIONAL)).rows()]
    assert names == [
        "augment.0.degrees",
        "model",
        "model.lenet.dropout",
        "model.lenet.batch_norm",
        "model.cnn.channels",
        "model.cnn.convs_per_block",
        "optimizer.lr",
        "train.batch_size",
    ]


# Drawing


def test_every_draw_is_a_recipe_and_conditional_keys_exist_where_they_are_chosen() -> None:
    recipe = recipe_of(CONDITIONAL)
    space = parse_space(recipe)
    space.check(recipe)
    seen = set()
    for trial, values in trials(space):
        assert list(values) == ["augment.0.degrees", "model", "optimizer.lr", "train.batch_size"]
        drawn = changed(recipe, values)
        assert drawn.optimizer.options["lr"] == values["optimizer.lr"]
        assert values["augment.0.degrees"] in {0.0, 5.0, 10.0, 15.0, 20.0}
        assert 1e-4 <= values["optimizer.lr"] <= 1e-1
        name = values["model"]["name"]
        inner = {key for key in trial.params if key.startswith("model.")}
        assert inner == {f"model.{name}.{key}" for key in values["model"] if key != "name"}
        assert tomllib.loads(drawn.text)["model"] == values["model"]
        assert drawn.model.name == name
        if name == "cnn":
            assert drawn.model.options["channels"] in {(8, 16), (16, 32, 64)}
            assert type(values["model"]["convs_per_block"]) is int
        seen.add(name)
    assert seen == {"lenet", "cnn", "linear"}


def test_a_finished_trial_gives_its_values_again() -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    for trial, values in trials(space, 10):
        assert space.suggest(optuna.trial.FixedTrial(trial.params)) == values
        assert space.suggest(trial.study.trials[trial.number]) == values


def test_a_draw_leaves_the_space_as_it_was() -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    before = json.dumps(space.as_json())
    for _, values in trials(space, 5):
        values["model"]["name"] = "changed"
        values["model"].get("channels", []).append(7)
    assert json.dumps(space.as_json()) == before


def test_choices_keep_their_types() -> None:
    space = space_of(
        '"train.class_weights" = {choice = ["none", [1.0, 2.0]]}\n"compute.threads" = {choice = ["auto", 1]}'
    )
    drawn = [values for _, values in trials(space, 30)]
    assert {json.dumps(values["train.class_weights"]) for values in drawn} == {'"none"', "[1.0, 2.0]"}
    assert {values["compute.threads"] for values in drawn} == {"auto", 1}


def test_true_and_one_are_two_values() -> None:
    space = space_of('"x.y" = {choice = [true, 1, 1.0, "1"]}')
    assert {json.dumps(values["x.y"]) for _, values in trials(space, 60)} == {"true", "1", "1.0", '"1"'}


def test_a_range_may_stand_beside_plain_values() -> None:
    space = space_of('"train.clip_norm" = {choice = [0.0, {float = [0.5, 2.0], log = true}]}')
    drawn = [values["train.clip_norm"] for _, values in trials(space)]
    assert min(drawn) == 0
    assert len({value for value in drawn if 0.5 <= value <= 2}) == len([value for value in drawn if value])
    assert [name for name, *_ in space.rows()][1].startswith("train.clip_norm.")


def test_a_whole_array_of_tables_may_be_chosen() -> None:
    recipe = recipe_of(
        '[search.space]\naugment = {choice = [[], [{name = "affine", degrees = {float = [1, 9]}}, '
        '{name = "horizontal_flip", p = {choice = [0.25, 0.5]}}]]}'
    )
    space = parse_space(recipe)
    space.check(recipe)
    kinds = {tuple(chosen.name for chosen in changed(recipe, values).augment) for _, values in trials(space, 20)}
    assert kinds == {(), ("affine", "horizontal_flip")}


def test_a_key_inside_of_a_chosen_table_is_set_afterwards() -> None:
    recipe = recipe_of(
        '[search.space]\n"optimizer.weight_decay" = {float = [0.1, 0.2]}\n'
        'optimizer = {choice = [{name = "adam", lr = {float = [1e-4, 1e-3]}}, {name = "sgd", momentum = 0.5}]}'
    )
    space = parse_space(recipe)
    space.check(recipe)
    drawn = [changed(recipe, values).optimizer for _, values in trials(space, 20)]
    assert {chosen.name for chosen in drawn} == {"adam", "sgd"}
    assert all(0.1 <= chosen.options["weight_decay"] <= 0.2 for chosen in drawn)


def test_options_of_one_name_have_labels_of_their_own() -> None:
    space = space_of(
        '"model" = {choice = [{name = "cnn", dropout = {float = [0, 0.1]}}, '
        '{name = "cnn", hidden = [8], dropout = {float = [0.1, 0.2]}}]}'
    )
    assert [name for name, *_ in space.rows()] == ["model", "model.cnn.dropout", "model.cnn-2.dropout"]
    for trial, values in trials(space, 20):
        assert ("hidden" in values["model"]) == (trial.params["model"] == "cnn-2")


# Sizes


def test_the_size_of_a_grid() -> None:
    assert space_of('"train.epochs" = {int = [1, 3]}\n"data.size" = {choice = [16, 32]}').size() == 6
    assert space_of('"train.ema" = {float = [0.1, 0.7], step = 0.2}').size() == 4
    assert parse_space(recipe_of(CONDITIONAL)).size() is None
    assert parse_space(recipe_of(CONDITIONAL)).continuous() == ("model.lenet.dropout", "optimizer.lr")


def test_conditional_keys_add_up_and_do_not_multiply() -> None:
    space = space_of(
        '"data.size" = {choice = [16, 32]}\nmodel = {choice = [{name = "lenet"}, '
        '{name = "cnn", convs_per_block = {int = [1, 3]}, bias = {choice = [true, false]}}]}'
    )
    assert space.size() == 2 * (1 + 3 * 2)
    combinations = [space.combination(index) for index in range(14)]
    assert len({json.dumps(combination) for combination in combinations}) == 14
    for combination in combinations:
        values = space.suggest(optuna.trial.FixedTrial(combination))
        assert ("convs_per_block" in values["model"]) == (values["model"]["name"] == "cnn")
    assert combinations[0] == {"data.size": 16, "model": "lenet"}
    with pytest.raises(IndexError):
        space.combination(14)


# Problems


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ('"train.epochs" = {int = [5, 5]}', "train.epochs: the range [5, 5] is empty: lo must be less than hi"),
        ('"train.epochs" = {int = [5, 1]}', "train.epochs: the range [5, 1] is empty: lo must be less than hi"),
        ('"optimizer.lr" = {float = [0, 1], log = true}', "optimizer.lr: log needs lo > 0, but 0 was given"),
        ('"train.epochs" = {choice = []}', "train.epochs: choice must be an array with at least one value, but [] was"),
        ('"train.epochs" = {choice = 3}', "train.epochs: choice must be an array with at least one value, but 3 was"),
        ('"train.epochs" = {int = [1, 2.5]}', "train.epochs: int must be two whole numbers [lo, hi], but [1, 2.5]"),
        ('"train.epochs" = {int = [1]}', "train.epochs: int must be two whole numbers [lo, hi], but [1] was given"),
        ('"train.ema" = {float = [0, inf]}', "train.ema: float must be two finite numbers [lo, hi], but [0"),
        ('"train.ema" = {float = [0, true]}', "train.ema: float must be two finite numbers [lo, hi], but [0, true]"),
        ('"train.ema" = {float = [0, 0.5], step = 0}', "train.ema: step must be a number above 0, but 0 was given"),
        ('"train.ema" = {float = [0, 0.5], step = 1}', "train.ema: step 1 is larger than the range"),
        (
            '"train.ema" = {float = [0, 0.5], step = 0.2}',
            "train.ema: steps of 0.2 from 0.0 do not end at 0.5 but at 0.4; write that as hi",
        ),
        ('"train.epochs" = {int = [1, 5], step = 0.5}', "train.epochs: step must be a whole number above 0, but 0.5"),
        ('"train.epochs" = {int = [1, 5], step = 2, log = true}', "train.epochs: log and step exclude each other"),
        ('"train.epochs" = {int = [1, 5], log = 1}', "train.epochs: log must be true or false, but 1 was given"),
        ('"train.epochs" = {int = [1, 5], logg = true}', 'train.epochs.logg: unknown key; did you mean "log"?'),
        ('"train.epochs" = {choice = [1], log = true}', "train.epochs.log: unknown key; allowed: choice"),
        ('"train.epochs" = {int = [1, 5], choice = [1]}', "train.epochs: one of int and choice, not both"),
        ('"train.epochs" = {choice = [1, 2, 1]}', "train.epochs: choice has 1 twice"),
        ('"train.epochs" = {range = [1, 5]}', "train.epochs: must be {float = [lo, hi]}, {int = [lo, hi]} or {choice"),
        ('"train.ema" = {flot = [0, 0.5]}', "train.ema: must be {float"),
        ('"train.epochs" = [1, 5]', "train.epochs: must be {float"),
        ('"train.epochs" = 5', "train.epochs: must be {float"),
        ('"train" = {}', "train: must be {float"),
    ],
)
def test_a_wrong_form_is_told(spec: str, expected: str) -> None:
    [problem] = problems(spec)
    assert problem.startswith(f"search.space.{expected}")


def test_a_misspelt_form_has_its_near_miss() -> None:
    assert problems('"train.ema" = {flot = [0, 0.5]}')[0].endswith('was given; did you mean "float"?')


def test_a_search_without_a_space_is_told() -> None:
    with pytest.raises(RecipeError, match=r"search.space: empty; write key = \{float"):
        parse_space(recipe_of(""))


def test_a_key_that_is_given_twice_is_told() -> None:
    found = problems('"train.epochs" = {int = [1, 2]}\n[search.space.train]\nepochs = {int = [1, 3]}')
    assert found == ("search.space.train.epochs: given twice",)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ('"optimizer.lrr" = {float = [0.1, 0.2]}', ['optimizer.lrr: unknown key; did you mean "lr"?']),
        ('"optimiser.lr" = {float = [0.1, 0.2]}', ['optimiser.lr: optimiser: unknown key; did you mean "optimizer"?']),
        ('"model.dropuot" = {float = [0.1, 0.2]}', ['model.dropuot: unknown key; did you mean "dropout"?']),
        ('"augment.0.degree" = {float = [1, 2]}', ['augment.0.degree: unknown key; did you mean "degrees"?']),
        ('"augment.3.degrees" = {float = [1, 2]}', ["augment.3.degrees: the recipe has no place 'augment.3.degrees'"]),
        (
            '"train.epochs" = {float = [1, 2]}',
            [
                "train.epochs: input should be a valid integer, but 1.0 was given",
                "train.epochs: input should be a valid integer, but 2.0 was given",
            ],
        ),
        ('"train.ema" = {float = [0.5, 1]}', ["train.ema: input should be less than 1, but 1.0 was given"]),
        (
            '"optimizer.lr" = {float = [-1, 1]}',
            ["optimizer.lr: input should be greater than 0, but -1.0 was given"],
        ),
        (
            '"data.resize" = {choice = ["crop", "stretch"]}',
            ["data.resize: input should be 'squash', 'crop' or 'pad', but \"stretch\" was given"],
        ),
        ('"optimizer.name" = {choice = ["adam", "sdg"]}', ["optimizer.name: there is no 'sdg'; did you mean \"sgd\"?"]),
        (
            'model = {choice = [{name = "lenet", dropuot = 0.1}, {name = "cmn"}, {name = "cnn", dropout = {float = [0, 2]}}]}',
            [
                'model: model.dropuot: unknown key; did you mean "dropout"?',
                "model: model.name: no plugin 'cmn' among the models",
                "model.cnn.dropout: must be float | array of float, but 2.0 was given",
            ],
        ),
        (
            'optimizer = {choice = [{name = "sgd"}, {name = "adam"}]}\n"optimizer.momentum" = {float = [0.1, 0.9]}',
            ["optimizer.momentum: unknown key; allowed: betas, "],
        ),
        ('experiment = {choice = ["a", "b"]}', ["experiment: cannot be searched: it names the study"]),
        ('"search.trials" = {int = [1, 2]}', ["search.trials: cannot be searched: it says how the search goes"]),
        ('"data.split_seed" = {int = [1, 2]}', ["data.split_seed: cannot be searched: trials are compared on one"]),
    ],
)
def test_what_the_recipe_refuses_is_told_with_the_key_of_the_space(spec: str, expected: list[str]) -> None:
    found = problems(spec)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(f"search.space.{start}")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            '"train.loss" = {choice = ["cross_entropy", "nll"]}\n"train.label_smoothing" = {float = [0, 0.1]}',
            "train.label_smoothing: only with the loss cross_entropy or bce",
        ),
        (
            '"data.copies" = {choice = [1, 2]}\naugment = {choice = [[], [{name = "affine"}]]}',
            "data.copies: copies without an [[augment]] would all be the same",
        ),
    ],
)
def test_what_only_some_combinations_contradict_is_told_once(spec: str, expected: str) -> None:
    [problem] = problems(spec)
    assert problem.startswith(f"search.space: some combinations are refused: {expected}")


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        '"optimizer.lrr" = {float = [0.1, 0.2]}\n"train.epochs" = {int = [3, 1]}\n"train.ema" = {float = [0, 2]}\n'
        '"data.size" = {sizes = [16, 32]}\nmodel = {choice = [{name = "cnn", dropout = {float = [1, 0]}}]}'
    )
    assert [problem.partition(": ")[0].removeprefix("search.space.") for problem in found] == [
        "train.epochs",
        "data.size",
        "model.cnn.dropout",
        "optimizer.lrr",
        "train.ema",
    ]


# The same space


def test_a_space_comes_back_from_its_json() -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    again = space_from_json(json.loads(json.dumps(space.as_json())))
    assert again == space
    assert again.as_json() == space.as_json()
    assert again.difference(space) == []


def test_the_order_of_keys_and_defaults_that_are_written_make_no_difference() -> None:
    one = space_of('"train.epochs" = {int = [1, 3], step = 1}\n"train.ema" = {float = [0, 0.5], log = false}')
    other = space_of('"train.ema" = {float = [0.0, 0.5]}\n"train.epochs" = {int = [1, 3]}')
    assert one == other
    assert one.as_json() == other.as_json() == {"train.ema": {"float": [0.0, 0.5]}, "train.epochs": {"int": [1, 3]}}


def test_the_difference_is_told_in_words() -> None:
    old = parse_space(recipe_of(CONDITIONAL))
    text = (
        CONDITIONAL.replace("1e-4, 1e-1", "1e-3, 1e-1")
        .replace("0.5", "0.4")
        .replace('"train.batch_size"', '"train.ema"')
    )
    new = parse_space(recipe_of(text.replace("[16, 32, 64]}", "[0.1, 0.2]}", 1)))
    assert new.difference(old) == [
        "model.lenet.dropout: float 0.0 to 0.4, was float 0.0 to 0.5",
        "optimizer.lr: float 0.001 to 0.1, log, was float 0.0001 to 0.1, log",
        "train.batch_size: is not searched, was one of 16, 32, 64",
        "train.ema: one of 0.1, 0.2, was not searched",
    ]
    assert old.difference(old) == []


def test_a_table_of_a_choice_that_differs_inside_is_told() -> None:
    one = space_of('model = {choice = [{name = "cnn", hidden = [8]}, {name = "linear"}]}')
    other = space_of('model = {choice = [{name = "cnn", hidden = [9]}, {name = "linear"}]}')
    [text] = one.difference(other)
    assert text.startswith('model: one of {"name": "cnn", "hidden": [8]}')
    assert '"hidden": [9]' in text


def test_steps_are_drawn_as_they_are_written() -> None:
    space = parse_space(recipe_of('[search.space]\n"model.dropout" = {float = [0.0, 0.4], step = 0.1}'))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {space.suggest(study.ask())["model.dropout"] for _ in range(40)} == {0.0, 0.1, 0.2, 0.3, 0.4}
