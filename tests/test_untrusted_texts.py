"""Class names and file names that would like to be code stay text wherever a run shows them."""

import csv
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
import yaml
from conftest import run_program
from pictures import write_class_pictures
from reports import Elements
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hf_tasks import workflow
from hf_tasks.artifacts import Artifacts
from hf_tasks.cli.screen import InertConsole
from hf_tasks.recipe import load_recipe
from hf_tasks.workflow.comparison import compare_runs

ESCAPE, TURNED = "\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"
CLASSES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    f"{ESCAPE}[31m[red]=cmd()|' /C calc'!A0{TURNED}\n| --- |",
)
FILES = ("<img src=x onerror=alert(1)>", "'\"><svg onload=alert(2)>", f"=cmd()|{ESCAPE}[2J[bold]{TURNED}\nx")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder called like a tag, of pictures and classes that are no better."""
    folder = tmp_path_factory.mktemp("texts")
    write_class_pictures(folder / "plain", classes=3, per_class=4)
    (folder / "pictures").mkdir()
    rows = [("image_path", "label")]
    for place, path in enumerate(sorted((folder / "plain").rglob("*.png"))):
        name = f"{FILES[place % 3]}{place}.png"
        shutil.copy(path, folder / "pictures" / name)
        rows.append((name, CLASSES[place // 4]))
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    source = {"table": str(folder / "rows.csv"), "images": str(folder / "pictures")}
    recipe = {
        "task": "image-classification",
        "output": str(folder / "[red]<b>run"),
        "data": {"train": source, "validation": source},
        "model": {"name": "test_vit", "pretrained": False, "image_size": 32},
        "training": {"max_steps": 1, "use_cpu": True, "dataloader_num_workers": 0, "learning_rate": 1e-9},
        "report": {"tensorboard": True},
        "export": {"formats": ["torchscript", "triton"], "sample": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    workflow.run(load_recipe(folder / "recipe.yaml"), console=Console(quiet=True))
    return folder / "[red]<b>run"


def require_inert(page: str) -> Elements:
    """The elements of a page, none of which is one of the attack's."""
    elements = Elements(page)
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("script") <= 1
    assert not {"onerror", "onload"} & {key for _, attributes in elements.tags for key in attributes}
    assert "alert" not in "".join(page.split("<script>")[1:]).partition("</script>")[0]
    return elements


def test_the_page_of_a_run_shows_names_as_they_are(run):
    elements = require_inert(Artifacts(run).report.read_text(encoding="utf-8"))

    shown = "".join(elements.text)
    assert all(name in shown for name in CLASSES[:2])
    assert FILES[0] in shown


def test_the_page_that_compares_runs_shows_names_as_they_are(run, tmp_path):
    out = StringIO()

    compare_runs(
        run, run, out=tmp_path / "compared.html", console=InertConsole(file=out, force_terminal=True)
    )

    require_inert((tmp_path / "compared.html").read_text(encoding="utf-8"))
    assert "[red]<b>" in out.getvalue()


def test_the_model_card_holds_no_markup_of_a_name(run):
    card = Artifacts(run).card.read_text(encoding="utf-8")

    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["model-index"][0]["name"] == run.name
    before, _, after = body.split("```")  # a block of code, in which the folder's name is a string of Python
    assert not set(f"<{ESCAPE}{TURNED}") & set(before + after)
    assert "&#60;script&#62;alert(1)" in body


def test_tables_for_machines_keep_every_name_exactly(run):
    with Artifacts(run).predictions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    assert {row["true"] for row in rows} == set(CLASSES)
    assert {row["path"] for row in rows} == {path.name for path in (run.parent / "pictures").iterdir()}
    assert json.loads(Artifacts(run).data.read_text())["classes"] == sorted(CLASSES)


def test_triton_gets_a_line_for_each_label(run):
    found = sorted((Artifacts(run).exports / "triton").rglob("labels.txt"))

    assert found
    labels = found[0]
    expected = [" ".join(name.splitlines()) for name in sorted(CLASSES)]
    assert labels.read_text(encoding="utf-8").split("\n") == [*expected, ""]
    config = (labels.parent / "config.pbtxt").read_text()
    assert f'name: "{labels.parent.name}"' in config
    assert not set("<>[]") & set(labels.parent.name)


def test_tags_of_tensorboard_hold_plain_characters(run):
    events = EventAccumulator(str(Artifacts(run).logs))
    events.Reload()

    tags = [tag for kind in events.Tags().values() if isinstance(kind, list) for tag in kind]
    assert any("precision_recall" in tag for tag in tags)
    assert not set(f"<>\"'{ESCAPE}{TURNED}\n") & set("".join(tags))


@pytest.mark.slow
def test_the_screen_is_not_steered_by_names(run, tmp_path):
    recipe = yaml.safe_load((run.parent / "recipe.yaml").read_text(encoding="utf-8"))
    shutil.copy(run.parent / "rows.csv", tmp_path)
    recipe["data"]["train"] = {"table": "rows.csv", "images": "."}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    trained = run_program("train", "recipe.yaml", f"output={tmp_path}/run", folder=tmp_path)

    assert trained.returncode == 2
    assert "picture files that are not there: 12" in trained.stderr
    assert "=cmd()|\N{SYMBOL FOR ESCAPE}[2J[bold]" in trained.stderr
    assert not {ESCAPE, TURNED} & set(trained.stderr + trained.stdout)
    lines = [line for line in trained.stderr.splitlines() if "row " in line]
    assert len(lines) == len([line for line in lines if line.lstrip().startswith("row ")])


def test_what_rich_itself_wants_of_a_terminal_goes_through():
    out = StringIO()
    console = InertConsole(
        file=out, force_terminal=True, color_system="standard", highlight=False, emoji=False
    )

    console.print("[red]a[/]", end="")
    console.print(f"{ESCAPE}[2J :bomb: [red]", markup=False)

    assert out.getvalue().startswith("\x1b[31ma\x1b[0m")
    assert out.getvalue().endswith("\N{SYMBOL FOR ESCAPE}[2J :bomb: [red]\n")
