"""Recipes: every problem at once, changes by --set, and a digest of what is said."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import Field

from bench import registry
from bench.errors import BenchError, PluginError, RecipeError
from bench.recipe import Recipe, changed, load, parse

PATH = Path("recipes/toy.toml")
BASE = """\
# What is compared
[dataset]
name = "toy_data"

[model]
name = "toy_net"  # small
depth = 3

[[augment]]
name = "toy_turn"
degrees = 10.0

[[augment]]
name = "toy_flip"
"""


def toy_data(root: Path, *, fold: int = 0) -> None:
    raise NotImplementedError(root, fold)


def toy_net(spec: Any, *, depth: Annotated[int, Field(ge=1)] = 1, widths: tuple[int, ...] = ()) -> None:
    raise NotImplementedError(spec, depth, widths)


def toy_turn(*, degrees: float, fill: float = 0.0) -> None:
    raise NotImplementedError(degrees, fill)


def toy_flip(*, p: float = 0.5) -> None:
    raise NotImplementedError(p)


def toy_faulty(spec: Any, depth: int = 3) -> None:
    raise NotImplementedError(spec, depth)


TOYS: Mapping[str, Mapping[str, Any]] = {
    "bench.datasets": {"toy_data": toy_data},
    "bench.models": {"toy_net": toy_net, "toy_faulty": toy_faulty, "toy_absent": None},
    "bench.augmentations": {"toy_turn": toy_turn, "toy_flip": toy_flip},
}


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("recipe_toys")
    vars(module).update({name: toy for toys in TOYS.values() for name, toy in toys.items() if toy})
    monkeypatch.setitem(sys.modules, "recipe_toys", module)

    def points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, f"recipe_toys:{name}", group) for name in TOYS[group]]

    monkeypatch.setattr(registry, "entry_points", points)
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


def recipe(*changes: str, text: str = BASE) -> Recipe:
    return parse(text, path=PATH, changes=changes)


def problems(*changes: str, text: str = BASE) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as error:
        recipe(*changes, text=text)
    return error.value.problems


# Reading


def test_a_recipe_is_read_with_defaults_filled_in() -> None:
    read = recipe()
    assert (read.path, read.text, read.experiment, read.seeds) == (PATH, BASE, "toy", (0,))
    assert (read.dataset.name, read.dataset.options, read.root) == ("toy_data", {"fold": 0}, "")
    assert (read.model.name, read.model.options) == ("toy_net", {"depth": 3, "widths": ()})
    assert [(chosen.name, chosen.options) for chosen in read.augment] == [
        ("toy_turn", {"degrees": 10.0, "fill": 0.0}),
        ("toy_flip", {"p": 0.5}),
    ]
    assert (read.optimizer.name, read.scheduler.name) == ("adamw", "none")
    assert read.optimizer.options["lr"] == 1e-3
    assert (read.train.epochs, read.data.size, read.compute.device) == (10, 64, "auto")
    assert (read.weights, read.freeze) == ("", ())


def test_the_keys_of_the_core_stand_beside_the_options() -> None:
    read = recipe('model.weights="w.safetensors"', 'model.freeze=["features"]', "dataset.root=photos", "dataset.fold=2")
    assert (read.weights, read.freeze, read.root) == ("w.safetensors", ("features",), "photos")
    assert read.model.options == {"depth": 3, "widths": ()}
    assert read.dataset.options == {"fold": 2}


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BASE, encoding="utf-8")
    assert load(path).experiment == "mine"
    assert load(path, ["experiment=other"]).experiment == "other"
    assert load(path).digest == recipe().digest


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none.toml: cannot be read: No such file") as error:
        load(tmp_path / "none.toml")
    assert error.value.hint == "recipes/ holds examples"
    (tmp_path / "latin.toml").write_bytes(b'experiment = "\xe9"')
    with pytest.raises(RecipeError, match=r"latin.toml: cannot be read: .*utf-8"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize("changes", [(), ("train.epochs=3",)])
def test_text_that_is_no_toml_is_named(changes: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"recipes/toy.toml: not valid TOML: ") as error:
        recipe(*changes, text="[model\nname = 3")
    assert error.value.exit_code == 2


# Problems


def test_every_problem_is_told_at_once_with_file_and_dotted_key() -> None:
    text = """
sedes = [0]
[dataset]
name = "toy_data"
fold = "0"
[model]
name = "toy_net"
depth = 0
dept = 3
[[augment]]
name = "toy_turn"
[[augment]]
name = "toy_flop"
[trian]
epochs = 3
[train]
epochs = "3"
batch_size = 3.0
shuffle = true
[optimizer]
lr = -1
[scheduler]
name = "cosin"
"""
    with pytest.raises(RecipeError) as error:
        recipe(text=text)
    assert str(error.value).startswith("recipes/toy.toml: 12 problems\n  sedes: unknown key")
    assert error.value.hint == "recipes/README.md lists every key"
    assert set(error.value.problems) == {
        'sedes: unknown key; did you mean "seeds"?',
        'trian: unknown key; did you mean "train"?',
        'train.epochs: input should be a valid integer, but "3" was given',
        "train.batch_size: input should be a valid integer, but 3.0 was given",
        next(line for line in error.value.problems if line.startswith("train.shuffle: unknown key")),
        'dataset.fold: input should be a valid integer, but "0" was given',
        "model.depth: input should be greater than or equal to 1, but 0 was given",
        'model.dept: unknown key; did you mean "depth"?',
        "augment.0.degrees: required, but not given",
        next(line for line in error.value.problems if line.startswith("augment.1.name: no plugin 'toy_flop' among")),
        "optimizer.lr: input should be greater than 0, but -1 was given",
        "scheduler.name: there is no 'cosin'; did you mean \"cosine\"?",
    }


def test_one_problem_is_counted_as_one() -> None:
    with pytest.raises(RecipeError, match=r"^recipes/toy.toml: 1 problem\n  train.epochs: "):
        recipe("train.epochs=-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["dataset.name: required, but not given", "model.name: required, but not given"]),
        ("dataset = 3\nmodel = []", ["dataset: must be a table", "model: must be a table"]),
        ('[dataset]\nname = "toy_data"\n[model]\nname = 5', ["model.name: input should be a valid string"]),
        ('[dataset]\nname = "toy_data"\n[model]\nname = ""', ["model.name: "]),
        (f"train = 3\n{BASE}", ["train: input should be an object, but 3 was given"]),
        (f"optimizer = 'adam'\n{BASE}", ["optimizer: must be a table"]),
        (f"{BASE}[scheduler]\nname = ['step']", ["scheduler.name: there is no ['step']"]),
        (f"{BASE}[optimizer]\nname = 5", ["optimizer.name: there is no 5; known: sgd, adam, adamw, rmsprop"]),
        (BASE.replace("[[augment]]", "[augment]", 1).partition("[[")[0], ["augment: must be an array of tables"]),
        ('augment = ["toy_flip"]\n' + BASE.partition("[[")[0], ["augment.0: must be a table"]),
        (f"seeds = []\n{BASE}", ["seeds: "]),
        (f"seeds = [0, -1]\n{BASE}", ["seeds: input should be greater than or equal to 0, but -1 was given"]),
        (f"seeds = 3\n{BASE}", ["seeds: input should be a valid array, but 3 was given"]),
    ],
)
def test_what_has_the_wrong_form_is_named(text: str, expected: list[str]) -> None:
    found = problems(text=text)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("data.size=[32, 48]", (32, 48)),
        ("data.size=32", 32),
        ("data.mean=[0.5]", (0.5,)),
        ("train.class_weights=[1, 2]", (1.0, 2.0)),
        ("train.class_weights=balanced", "balanced"),
        ("compute.threads=auto", "auto"),
        ("data.channels=1", 1),
    ],
)
def test_keys_with_several_types(change: str, expected: Any) -> None:
    section, key = change.partition("=")[0].split(".")
    extra = ("data.normalize=given", "data.std=[0.1]") if key == "mean" else ()
    assert getattr(getattr(recipe(change, *extra), section), key) == expected


@pytest.mark.parametrize(
    "change", ["data.size=0", "data.size=[1, 2, 3]", "data.channels=2", "train.ema=1", "train.epochs=true"]
)
def test_values_out_of_bounds(change: str) -> None:
    key, _, value = change.partition("=")
    [line] = problems(change)
    assert line.startswith(f"{key}: ")
    assert line.endswith(f"but {value} was given")


def test_optimizers_and_schedulers_have_keys_of_their_own() -> None:
    read = recipe("optimizer.name=sgd", "optimizer.momentum=0.8", "scheduler.name=step", "scheduler.step_size=5")
    assert (read.optimizer.name, read.scheduler.name) == ("sgd", "step")
    assert (read.optimizer.options["lr"], read.optimizer.options["momentum"]) == (0.1, 0.8)
    assert read.scheduler.options == {"warmup_epochs": 0.0, "step_size": 5, "gamma": 0.1}
    assert problems("optimizer.momentum=0.8")[0].startswith("optimizer.momentum: unknown key; allowed: betas, ")
    assert problems("scheduler.gama=0.8", "scheduler.name=step") == (
        'scheduler.gama: unknown key; did you mean "gamma"?',
    )
    assert problems("optimizer.name=lion")[0] == (
        "optimizer.name: there is no 'lion'; known: sgd, adam, adamw, rmsprop"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["data.normalize=given"], "data.normalize: "),
        (["data.mean=[0.5]"], "data.normalize: "),
        (["data.std=[0.5]"], "data.normalize: "),
        (["data.mean=[0.5]", "data.std=[0.5]"], "data.normalize: "),
        (["data.normalize=given", "data.mean=[0.5]"], "data.normalize: "),
        (["data.normalize=given", "data.mean=[0.5]", "data.std=[0.5, 0.5]"], "data.mean: as many values as data.std"),
        (["compute.device=cpu", "compute.precision=fp16"], 'compute.precision: "fp16" needs CUDA'),
        (["train.loss=nll", "train.label_smoothing=0.1"], "train.label_smoothing: only with"),
        (["train.loss=contrastive", "train.label_smoothing=0.1"], "train.label_smoothing: only with"),
        (["data.copies=2", "augment=[]"], "data.copies: copies without an [[augment]] would all be the same"),
        (["init.conv_weight=normel(0, 1)"], "init.conv_weight: there is no distribution 'normel(0, 1)'; did you mean"),
        (["init.linear_weight=normal(0)"], "init.linear_weight: must be normal(mean, std) with finite numbers, but"),
        (["init.conv_bias=orthogonal"], "init.conv_bias: orthogonal is for weights"),
        (["init.linear_bias=kaiming_normal"], "init.linear_bias: kaiming_normal is for weights"),
        (["train.monitor=accuracy"], "train.monitor: 'accuracy' is not tracked"),
    ],
)
def test_contradictions(changes: list[str], expected: str) -> None:
    [line] = problems(*changes)
    assert line.startswith(expected)


def test_every_wrong_distribution_is_told_at_once() -> None:
    found = problems("init.conv_weight=uniform(1, 0)", "init.linear_bias=xavier_uniform", "train.monitor=accuracy")
    assert [line.partition(":")[0] for line in found] == ["init.conv_weight", "init.linear_bias", "train.monitor"]


def test_copies_distributions_and_a_threshold_may_be_given() -> None:
    read = recipe("data.copies=3", "init.conv_weight=normal(0, 0.01)", "init.conv_bias=ones", "train.threshold=0.5")
    assert (read.data.copies, read.init.conv_weight, read.init.conv_bias) == (3, "normal(0, 0.01)", "ones")
    assert (read.train.threshold, recipe().train.threshold) == (0.5, "auto")


def test_statistics_that_are_given_whole_are_no_contradiction() -> None:
    read = recipe("data.normalize=given", "data.mean=[0.5]", "data.std=[0.2]")
    assert (read.data.mean, read.data.std) == ((0.5,), (0.2,))


def test_a_plugin_at_fault_is_an_error_of_the_plugin() -> None:
    with pytest.raises(PluginError, match="toy_faulty: option 'depth' must be keyword-only") as error:
        recipe("model={name='toy_faulty'}")
    assert error.value.exit_code == 3
    with pytest.raises(PluginError, match=r"'toy_absent' of unknown \? cannot be imported"):
        recipe("model={name='toy_absent'}")


def test_a_plugin_at_fault_is_told_beside_the_problems_of_the_recipe() -> None:
    found = problems("model={name='toy_faulty'}", "train.epochs=-1")
    assert len(found) == 2
    assert "must be keyword-only" in found[1]


def test_a_name_that_two_distributions_claim_is_an_error_of_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, target, group) for name in TOYS[group] for target in (f"one:{name}", f"two:{name}")]

    monkeypatch.setattr(registry, "entry_points", twice)
    registry.installed.cache_clear()
    with pytest.raises(PluginError, match="models plugin 'toy_net' is claimed by"):
        recipe()


# --set


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ("a b # c", "a b # c"),
        ("runs/2024-01", "runs/2024-01"),
        ("", ""),
        ("a=b", "a=b"),
        (" padded ", "padded"),
    ],
)
def test_a_value_is_toml_or_else_a_string(given: str, expected: str) -> None:
    changed = recipe(f"experiment={given}")
    assert changed.experiment == (expected or "toy")
    assert tomllib.loads(changed.text)["experiment"] == expected


def test_values_are_typed_as_in_a_file() -> None:
    read = recipe("train.epochs=3", "optimizer.lr=3e-4", "compute.compile=true", "seeds=[0, 1]", "model.widths=[8, 16]")
    assert (read.train.epochs, read.optimizer.options["lr"], read.compute.compile) == (3, 3e-4, True)
    assert (read.seeds, read.model.options["widths"]) == ((0, 1), (8, 16))
    assert problems('train.epochs="3"') == ('train.epochs: input should be a valid integer, but "3" was given',)


def test_an_index_reaches_into_an_array() -> None:
    read = recipe("augment.0.degrees=5.0", "augment.1.p=1.0")
    assert [chosen.options for chosen in read.augment] == [{"degrees": 5.0, "fill": 0.0}, {"p": 1.0}]


def test_whole_tables_are_set_inline() -> None:
    read = recipe('optimizer={name="sgd", lr=0.5}', 'augment=[{name="toy_flip", p=1.0}]', 'model={name="toy_net"}')
    assert (read.optimizer.name, read.optimizer.options["lr"]) == ("sgd", 0.5)
    assert [(chosen.name, chosen.options) for chosen in read.augment] == [("toy_flip", {"p": 1.0})]
    assert read.model.options["depth"] == 1


def test_missing_tables_are_made_and_comments_stay() -> None:
    read = recipe("train.epochs=3", "model.depth=4", "experiment=mine")
    assert read.text.index("experiment") < read.text.index("[dataset]")
    for kept in ("# What is compared", 'name = "toy_net"  # small', "depth = 4", "[train]\nepochs = 3"):
        assert kept in read.text
    again = recipe(text=read.text)
    assert (again.digest, again.text) == (read.digest, read.text)


def test_the_last_of_several_changes_holds() -> None:
    assert recipe("train.epochs=3", "train.epochs=4").train.epochs == 4


@pytest.mark.parametrize("change", ["train.epochs", "=3", ".epochs=3", "train..epochs=3", "train.=3", ""])
def test_a_change_of_another_form_is_refused(change: str) -> None:
    with pytest.raises(RecipeError, match="not of the form key=value") as error:
        recipe(change)
    assert error.value.hint == "--set train.epochs=20"


@pytest.mark.parametrize("change", ["augment.2.p=1", "augment.p=1", "model.depth.x=1", "augment.0.degrees.0=1", "0=1"])
def test_a_change_without_a_place_is_refused(change: str) -> None:
    with pytest.raises(RecipeError, match=r"augment|has no place|unknown key"):
        recipe(change)


def test_a_digit_that_is_no_number_is_no_index() -> None:
    with pytest.raises(BenchError):
        recipe("augment.².p=1")


def test_a_change_is_checked_like_the_file() -> None:
    assert problems("trian.epochs=3") == ('trian: unknown key; did you mean "train"?',)
    assert problems("model.dept=3") == ('model.dept: unknown key; did you mean "depth"?',)


# Changes of a search


def test_values_of_any_type_are_set_and_text_and_digest_follow() -> None:
    values = {
        "model.depth": 4,
        "model.widths": [8, 16],
        "optimizer.lr": 1e-5,
        "augment.0.degrees": 5.5,
        "experiment": "m",
    }
    new = changed(recipe(), values)
    assert (new.model.options, new.optimizer.options["lr"]) == ({"depth": 4, "widths": (8, 16)}, 1e-5)
    assert (new.augment[0].options["degrees"], new.experiment, new.path) == (5.5, "m", PATH)
    again = recipe(text=new.text)
    assert (again.digest, again.model) == (new.digest, new.model)
    assert new.digest != recipe().digest
    assert "# What is compared" in new.text


def test_no_change_is_the_same_recipe() -> None:
    assert changed(recipe(), {}) == recipe()


def test_a_string_stays_a_string() -> None:
    assert changed(recipe(), {"experiment": "3"}).experiment == "3"
    with pytest.raises(RecipeError, match=r'train.epochs: input should be a valid integer, but "3" was given'):
        changed(recipe(), {"train.epochs": "3"})


def test_a_table_replaces_the_table_that_was_there() -> None:
    new = changed(recipe(), {"model": {"name": "toy_net", "widths": [4]}, "optimizer": {"name": "sgd", "lr": 0.5}})
    assert tomllib.loads(new.text)["model"] == {"name": "toy_net", "widths": [4]}
    assert (new.model.options["depth"], new.optimizer.name) == (1, "sgd")
    later = changed(recipe(), {"optimizer": {"name": "sgd"}, "optimizer.momentum": 0.5})
    assert later.optimizer.options["momentum"] == 0.5


def test_arrays_of_tables_are_replaced_and_reached_into() -> None:
    new = changed(recipe(), {"augment": [{"name": "toy_flip", "p": 0.25}, {"name": "toy_turn", "degrees": 1.0}]})
    assert [chosen.name for chosen in new.augment] == ["toy_flip", "toy_turn"]
    assert changed(new, {"augment.0.p": 0.75}).augment[0].options == {"p": 0.75}
    assert changed(recipe(), {"augment": []}).augment == ()


@pytest.mark.parametrize(
    "order",
    [
        '[model]\nname = "toy_net"\n[dataset]\nname = "toy_data"\n[optimizer]\nlr = 0.1\n',
        'model.name = "toy_net"\ndataset.name = "toy_data"\noptimizer.lr = 0.1\nmodel.depth = 2\n',
        'model = {name = "toy_net"}\ndataset = {name = "toy_data"}\noptimizer = {lr = 0.1}\n',
        '[export.gate]\n[model]\nname = "toy_net"\n[dataset]\nname = "toy_data"\n[export]\n[optimizer]\nlr = 0.1\n',
    ],
    ids=["tables", "dotted", "inline", "apart"],
)
def test_however_a_recipe_is_written_its_tables_are_replaced(order: str) -> None:
    values = {
        "model": {"name": "toy_net", "depth": 5},
        "export": {"gate": {"fp32_agreement": 0.25}},
        "optimizer.lr": 0.2,
    }
    new = changed(recipe(text=order), values)
    expected = tomllib.loads(order) | {"model": values["model"], "export": values["export"]}
    expected["optimizer"]["lr"] = 0.2
    assert tomllib.loads(new.text) == expected


def test_a_change_leaves_its_values_alone() -> None:
    values = {"model": {"name": "toy_net"}, "model.depth": 7}
    assert changed(recipe(), values).model.options["depth"] == 7
    assert values == {"model": {"name": "toy_net"}, "model.depth": 7}


def test_every_problem_of_a_change_is_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"recipes/toy.toml: 2 problems") as error:
        changed(recipe(), {"model.depth": 0, "trian.epochs": 3})
    assert len(error.value.problems) == 2
    with pytest.raises(RecipeError, match=r"recipes/toy.toml: 1 problem\n  augment.7.p: the recipe has no place"):
        changed(recipe(), {"augment.7.p": 0.5})


# What a search does


def test_a_recipe_says_how_it_is_searched() -> None:
    text = f"""{BASE}
[search]
trials = 9
sampler = "qmc"
constraints = ["latency_ms <= 5"]
latency = {{percentile = 90.0, batch = 8}}

[search.space]
"optimizer.lr" = {{float = [1e-4, 1e-1], log = true}}
"""
    search = recipe(text=text).search
    assert (search.trials, search.sampler, search.constraints) == (9, "qmc", ("latency_ms <= 5",))
    assert (search.latency.percentile, search.latency.batch, search.latency.scenario) == (90.0, 8, "single")
    assert search.space == {"optimizer.lr": {"float": [1e-4, 1e-1], "log": True}}
    plain = recipe().search
    assert (plain.trials, plain.sampler, plain.pruner, plain.seeds, plain.space) == (50, "tpe", "median", (0, 1, 2), {})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("search.trails=3", 'search.trails: unknown key; did you mean "trials"?'),
        ("search.trials=0", "search.trials: input should be greater than or equal to 1, but 0 was given"),
        ("search.sampler=tpa", "search.sampler: input should be 'tpe', "),
        ("search.pruner=medium", "search.pruner: input should be 'none', "),
        ("search.timeout_s=0", "search.timeout_s: input should be greater than 0, but 0 was given"),
        ("search.seeds=[]", "search.seeds: "),
        ("search.space=3", "search.space: input should be "),
        ("search.latency.batch=0", "search.latency.batch: input should be greater than or equal to 1, but 0"),
        ("search.latency.scenario=server", "search.latency.scenario: input should be 'single', "),
    ],
)
def test_a_wrong_key_of_a_search_is_told(change: str, expected: str) -> None:
    [line] = problems(change)
    assert line.startswith(expected)


# The digest


def test_the_digest_is_of_what_is_said() -> None:
    reordered = 'model = {depth = 3, name = "toy_net"}\ndataset.name = "toy_data"\n' + BASE[BASE.index("[[") :]
    commented = BASE.replace("\n", " # and why\n").replace(" # small # and why", "")
    assert recipe(text=reordered).digest == recipe().digest == recipe(text=commented).digest
    assert len(recipe().digest) == 64


@pytest.mark.parametrize("change", ["model.depth=4", "seeds=[1]", "experiment=mine", "train.epochs=10", "augment=[]"])
def test_a_value_changes_the_digest(change: str) -> None:
    assert recipe(change).digest != recipe().digest


def test_a_change_and_the_same_line_in_the_file_have_one_digest() -> None:
    assert recipe("model.depth=4").digest == recipe(text=BASE.replace("depth = 3", "depth = 4")).digest


def test_the_order_of_augmentations_counts() -> None:
    head, turn, flip = BASE.partition("[[")[0], *BASE[BASE.index("[[") :].split("\n\n")
    assert recipe(text=f"{head}{flip}\n{turn}\n").digest != recipe().digest
