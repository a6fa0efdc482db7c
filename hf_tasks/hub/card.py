"""The model card of a run: metadata that the Hub reads, and Markdown that people read."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

PIPELINES = {"image-classification": "image-classification"}
"""Tasks of ours that a pipeline of transformers answers for, by the pipeline's name."""
LIBRARIES = {"siamese": "sentence-transformers"}
"""What loads a task's model, where it is not transformers."""
MARGIN = 0.1
FEW_EXAMPLES = 10
MOST_CLASSES = 200
_MARKUP = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069&<>|`*\[\]{}#~\\$!]|(?<!\w)_|_(?!\w)|^[-+=]"
)


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of; all texts may hold anything."""

    name: str
    task: str
    load_from: str
    """Repository or folder that the model is loaded from."""
    license: str | None
    datasets: Sequence[str]
    """Names of data sets on the Hub."""
    base_model: str | None
    """Repository whose weights training started from."""
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    """What data.json says."""
    config: Mapping[str, Any]
    """The model's config.json, with `calibration` where it has one."""
    formats: Sequence[Mapping[str, Any]]
    """What each exported file measured."""


def write_card(facts: CardFacts) -> str:
    """The card as Markdown with a head of YAML."""
    parts = [
        f"---\n{_metadata(facts).to_yaml()}\n---",
        f"# {escape(facts.name)}",
        *_opening(facts),
        *_loading(facts),
        *_figures(facts),
        *_classes(facts),
        *_weaknesses(facts),
        *_calibration(facts),
        *_exports(facts),
        "## Files\n\n`recipe.yaml` re-runs the training with hf_tasks, `metrics.json` has all figures.",
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: Any) -> str:
    """A text that Markdown shows as it is, on one line, in a table or not."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(str(text).split()))


def _metadata(facts: CardFacts) -> ModelCardData:
    pipeline = PIPELINES.get(facts.task)
    results = [
        EvalResult(
            task_type=pipeline or facts.task,
            dataset_type=facts.datasets[0] if facts.datasets else "custom",
            dataset_name="validation rows",
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in _single(facts.metrics)
    ]
    return ModelCardData(
        license=facts.license,
        library_name=LIBRARIES.get(facts.task, "transformers"),
        pipeline_tag=pipeline,
        tags=["hf_tasks", facts.task],
        datasets=list(facts.datasets) or None,
        base_model=facts.base_model,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def _single(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, float(value)) for name, value in metrics.items() if isinstance(value, int | float)]


def _opening(facts: CardFacts) -> Iterator[str]:
    data = facts.data
    if "train" not in data:
        return
    classes = f" of {len(data['classes'])} classes" if "classes" in data else ""
    start = f" from the weights of {escape(facts.base_model)}" if facts.base_model else ""
    yield (
        f"A model for {escape(facts.task)}, trained{start} on {data['train']['rows']} rows{classes} "
        f"and measured on {data['validation']['rows']} others."
    )


def _loading(facts: CardFacts) -> Iterator[str]:
    library = LIBRARIES.get(facts.task, "transformers")
    yield f"## How to use it\n\nNothing but {library} (and timm, for timm networks) is needed."
    place = json.dumps(facts.load_from).replace("`", "\\u0060")
    yield "\n".join(["```python", *_program(facts, place), "```"])


def _program(facts: CardFacts, place: str) -> list[str]:
    """Lines of Python that load the model and, where a line can show it, use it."""
    if facts.task in PIPELINES:
        name, variable, example = PIPELINES[facts.task], "classify", '"picture.jpg"'
    elif facts.task == "siamese":
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            f"model = SentenceTransformer({place})",
            'print(model.similarity(*model.encode(["a text", "another text"])))',
        ]
    elif facts.task == "language-model":
        is_masked = "MaskedLM" in str(facts.config.get("architectures"))
        name, variable = ("fill-mask", "fill") if is_masked else ("text-generation", "write")
        example = f'f"Once {{{variable}.tokenizer.mask_token}} a time"' if is_masked else '"Once upon a time"'
    elif facts.task == "metric-learning":
        return _embedding_program(facts, place)
    else:
        return ["from transformers import AutoModel", "", f"model = AutoModel.from_pretrained({place})"]
    return [
        "from transformers import pipeline",
        "",
        f'{variable} = pipeline("{name}", model={place})',
        f"print({variable}({example}))",
    ]


def _embedding_program(facts: CardFacts, place: str) -> list[str]:
    is_projected = "ForImageClassification" in str(facts.config.get("architectures"))
    kind, output = (
        ("AutoModelForImageClassification", "logits") if is_projected else ("AutoModel", "pooler_output")
    )
    return [
        "from PIL import Image",
        f"from transformers import AutoImageProcessor, {kind}",
        "",
        f"processor = AutoImageProcessor.from_pretrained({place})",
        f"model = {kind}.from_pretrained({place})",
        'picture = Image.open("picture.jpg").convert("RGB")',
        f'embedding = model(**processor(picture, return_tensors="pt")).{output}  # its direction counts',
    ]


def _figures(facts: CardFacts) -> Iterator[str]:
    yield "## Figures\n\nOf the validation rows, which training never saw; the best checkpoint."
    yield _table(("metric", "value"), [(name, f"{value:.4f}") for name, value in _single(facts.metrics)])


def _classes(facts: CardFacts) -> Iterator[str]:
    per_class = facts.metrics.get("per_class") or {}
    if not per_class:
        return
    shown = list(per_class.items())[:MOST_CLASSES]
    columns = ["precision", "recall", "f1", "support"]
    rows = [(name, *(_figure(figures.get(column)) for column in columns)) for name, figures in shown]
    yield "## Classes"
    yield _table(("class", *columns), rows)
    if len(per_class) > MOST_CLASSES:
        yield f"The first {MOST_CLASSES} of {len(per_class)} classes; all are in `metrics.json`."


def _weaknesses(facts: CardFacts) -> Iterator[str]:
    per_class = facts.metrics.get("per_class") or {}
    if not per_class:
        return
    lines = list(_weak_classes(per_class, facts.metrics)) + list(_hardly_measured(per_class))
    yield "## Known weak classes"
    yield "\n".join(lines) or f"No class has an F1 more than {MARGIN} below the mean of the classes."


def _weak_classes(per_class: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    """A line for each class whose F1 is well below the mean, weakest first, and what it is taken for."""
    names, confusion = list(per_class), metrics.get("confusion_matrix")
    limit = metrics["f1_macro"] - MARGIN
    weak = [name for name in names if per_class[name]["support"] and per_class[name]["f1"] < limit]
    for name in sorted(weak, key=lambda name: per_class[name]["f1"]):
        line = f"- {escape(name)}: F1 {per_class[name]['f1']:.3f}"
        if confusion is not None:
            own = names.index(name)
            missed = {other: count for other, count in enumerate(confusion[own]) if other != own and count}
            if missed:
                other = max(missed, key=lambda index: missed[index])
                line += f"; {missed[other]} of {sum(confusion[own])} are taken for {escape(names[other])}"
        yield line


def _hardly_measured(per_class: Mapping[str, Any]) -> Iterator[str]:
    few = [name for name, figures in per_class.items() if figures["support"] < FEW_EXAMPLES]
    if few:
        named = ", ".join(escape(name) for name in few[:20]) + (", ..." if len(few) > 20 else "")
        yield f"- measured on fewer than {FEW_EXAMPLES} examples each: {named}"


def _calibration(facts: CardFacts) -> Iterator[str]:
    calibration = facts.config.get("calibration") or {}
    if not calibration:
        return
    yield (
        "## Temperature and thresholds\n\n`calibration` in `config.json`, fitted to the validation rows; "
        "transformers does not apply it by itself: divide the logits by the temperature before softmax or "
        "sigmoid, and count a class as present from its threshold on."
    )
    if "temperature" in calibration:
        yield f"Temperature: {calibration['temperature']:.4f}"
    if "thresholds" in calibration:
        rows = [(name, f"{value:.4f}") for name, value in calibration["thresholds"].items()]
        yield _table(("class", "threshold"), rows)


def _exports(facts: CardFacts) -> Iterator[str]:
    passed = [record for record in facts.formats if record.get("passed")]
    if not passed:
        return
    yield (
        "## Exported files\n\nEach was compared with PyTorch on validation rows; "
        "`export/parity.json` has everything."
    )
    rows = [
        (
            record["format"],
            record["file"],
            _figure(record["largest_difference"], "g"),
            f"{record['metric']['name']} {record['metric']['before']:.4f} -> {record['metric']['after']:.4f}",
        )
        for record in passed
    ]
    yield _table(("format", "file", "largest difference", "by PyTorch -> by the file"), rows)


def _figure(value: float | None, form: str = "f") -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if form == "f" else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
