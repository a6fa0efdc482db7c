"""Five hundred spoiled recipes: each loads, or is a RecipeError whose lines name the file or an override."""

import copy
import tempfile
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_tasks.errors import RecipeError
from hf_tasks.recipe import load_recipe

GOOD = {
    "task": "image-classification",
    "output": "runs/flowers",
    "data": {
        "train": {"table": "train.csv", "images": "images"},
        "validation": 0.2,
        "columns": {"image": "image_path", "labels": ["a", "b"]},
    },
    "model": {"name": "resnet18", "pretrained": True, "image_size": 224},
    "augmentation": "light",
    "loss": {"name": "asymmetric", "clip": 0.1},
    "checkpoints": {"keep_best": 2},
    "early_stopping": {"patience": 3, "threshold": 0.0},
    "training": {
        "num_train_epochs": 10, "learning_rate": 1e-3, "optim": "sgd",
        "lr_scheduler_kwargs": {"min_lr": 0.1}, "report_to": ["none"],
    },
}  # fmt: skip
GOOD_TEXT = yaml.safe_dump(GOOD)
SYNTAX = [
    *"{}[]:,-?&*!|>'\"%@`#\t\n $.~=<\\0é\u2028\ud7ff", "<<: ", "&a ", "*a", "!!set ", "${", "${data.train}",
    "${oc.env:HOME}", "---\n", "\\x00", "1e999", "0x",
]  # fmt: skip
ODD_VALUES = [
    "???",
    "${model.name}",
    "${output}/${data.train.table}",
    "${oc.env:HOME}",
    "no",
    "1e-3",
    10**400,
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(ODD_VALUES)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["task", "data", "table", "hub", "learning_rat", "name", "labels", "seed", "output_dir"]
)


def paths_of(place, path=()):
    items = place.items() if isinstance(place, dict) else enumerate(place) if isinstance(place, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


@st.composite
def mutated(draw):
    recipe = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        *above, key = draw(st.sampled_from(sorted(paths_of(recipe), key=repr) or [("task",)]))
        place = recipe
        for step in above:
            place = place[step]
        item = place.pop(key) if key in place or isinstance(place, list) else None
        change = draw(st.sampled_from(["drop", "rename", "retype", "nest"]))
        new = {"retype": draw(values), "nest": {draw(keys): item}, "rename": item}.get(change)
        if change != "drop" and isinstance(place, dict):
            place[draw(keys | st.text(max_size=5)) if change == "rename" else key] = new
        elif change != "drop":
            place.append(new)
    return yaml.dump(recipe, allow_unicode=draw(st.booleans()))


@st.composite
def spoiled_text(draw):
    text = GOOD_TEXT
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + "".join(draw(st.lists(st.sampled_from(SYNTAX), max_size=6))) + text[end:]
    return text


override_keys = st.sampled_from([".".join(map(str, path)) for path in paths_of(GOOD)]) | st.text(max_size=10)
override_values = values.map(lambda value: yaml.dump(value, default_flow_style=True)) | st.text(max_size=10)
override_lists = st.lists(st.builds("{}={}".format, override_keys, override_values), min_size=1, max_size=3)


def require_recipe_or_recipe_error(text, overrides=()):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            recipe = load_recipe(path, overrides)
        except RecipeError as error:
            problems = error.problems
        else:
            problems = ()
            path.write_text(recipe.text, encoding="utf-8")
            again = load_recipe(path)
            assert repr(again) == repr(recipe)

    assert all(line.isprintable() and line.startswith((str(path), "override ")) for line in problems)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(mutated())
def test_changed_keys_and_values_never_give_a_traceback(text):
    require_recipe_or_recipe_error(text)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(spoiled_text() | st.text(max_size=60))
def test_spoiled_text_never_gives_a_traceback(text):
    require_recipe_or_recipe_error(text)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(override_lists)
@example(["task=\r:"])  # YAML counts more line breaks than \n
def test_odd_overrides_never_give_a_traceback(overrides):
    require_recipe_or_recipe_error(GOOD_TEXT, overrides)
