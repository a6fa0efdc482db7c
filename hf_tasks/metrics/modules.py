"""The metrics as `evaluate` modules that need no network, and further ones of that library by name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from huggingface_hub import constants
from numpy.typing import NDArray

from hf_tasks.errors import UserError
from hf_tasks.metrics.classification import compute_multiclass, compute_multilabel

PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Only to mend a slip of the keyboard: the library's own list needs a network.
FREQUENT_NAMES = (
    "accuracy",
    "brier_score",
    "f1",
    "mae",
    "matthews_correlation",
    "mse",
    "precision",
    "recall",
)

CITATION = """\
@misc{von2022evaluate,
  title={Evaluate & Evaluation on the Hub: Better Best Practices for Data and Model Measurements},
  author={von Werra, Leandro and others}, year={2022}, eprint={2210.01970}, archivePrefix={arXiv}}
"""


class MulticlassClassification(evaluate.Metric):
    """Accuracy, F1, per-class rates and confusion matrix from the probabilities of one class per example."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, top-5 accuracy, F1, per-class rates, confusion matrix; on probabilities.",
            citation=CITATION,
            inputs_description=(
                "predictions: a list of class probabilities an example; references: the number of its true "
                "class; class_names: the names in the order of the probabilities (0, 1, ... if left out)."
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self, predictions: Any, references: Any, class_names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        probabilities_NC = np.asarray(predictions, dtype=np.float64)
        names = class_names or _numbered(probabilities_NC)
        return compute_multiclass(probabilities_NC, np.asarray(references), class_names=names)


class MultilabelClassification(evaluate.Metric):
    """Exact matches, F1, average precision and ROC-AUC from the probability of each class."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact matches, F1, average precision and ROC-AUC of several classes at once.",
            citation=CITATION,
            inputs_description=(
                "predictions: a list of class probabilities an example; references: a list of 0 and 1 of the "
                "same length; class_names: as many names (0, 1, ... if left out); threshold: 0.5 if left out."
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        class_names: Sequence[str] | None = None,
        threshold: float = 0.5,
    ) -> dict[str, Any]:
        probabilities_NC = np.asarray(predictions, dtype=np.float64)
        names = class_names or _numbered(probabilities_NC)
        return compute_multilabel(
            probabilities_NC, np.asarray(references), class_names=names, threshold=threshold
        )


def load_further_metrics(
    names: Sequence[str], *, trust_remote_code: bool, is_multilabel: bool = False
) -> list[evaluate.Metric]:
    """Load metrics of the `evaluate` library, whose code comes from the Hub or from its cache.

    Args:
        names: names such as `matthews_correlation`; never paths, and no file or folder of that name may be
            in the current folder, because `evaluate` would run it instead.
        trust_remote_code: the person at the command line allows that this code is run.
        is_multilabel: ask for the variant that takes a list of 0 and 1 an example.

    Raises:
        UserError: a name that is not plain, code that is not allowed to run, or a metric that cannot be had.
    """
    for name in names:
        _require_plain(name)
    if names and not trust_remote_code:
        raise UserError(
            f"metrics: {', '.join(names)} of the evaluate library would download Python code from "
            "huggingface.co/evaluate-metric and run it on this machine, which a recipe alone may not ask "
            "for; add --trust-remote-code to the command to allow it, or take the names out of `metrics`"
        )
    return [_load(name, is_multilabel) for name in names]


def compute_further(
    metrics: Sequence[evaluate.Metric], predicted: NDArray[Any], labels: NDArray[Any]
) -> dict[str, Any]:
    """What further metrics say of decisions.

    Called with the same labels twice before training, it shows at once which metric cannot be used.

    Args:
        metrics: what `load_further_metrics` returned.
        predicted: (N,) classes, or (N, C) of 0 and 1.
        labels: the truth, in the same shape.

    Returns:
        JSON-ready numbers or lists, by the metric's name; `NAME_KEY` where its own key is another.

    Raises:
        UserError: a metric cannot be computed from such decisions.
    """
    results: dict[str, Any] = {}
    for metric in metrics:
        try:
            found: Mapping[str, Any] = metric.compute(predictions=predicted, references=labels)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"metrics: '{metric.name}' cannot be computed from decisions of shape {predicted.shape}: "
                f"{error}; take it out of `metrics`, or compute it from predictions.csv with its own options"
            ) from error
        for key, value in found.items():
            name = key if key == metric.name else f"{metric.name}_{key}"
            results[name] = np.asarray(value).tolist()
    return results


def _numbered(probabilities_NC: NDArray[np.float64]) -> list[str]:
    return [str(number) for number in range(probabilities_NC.shape[-1])]


def _require_plain(name: str) -> None:
    if not PLAIN_NAME.fullmatch(name):
        raise UserError(
            f"metrics: '{name}' is not a plain name; wanted the name of a metric of the evaluate library, "
            "such as matthews_correlation: paths and other people's metrics are not run"
        )
    if Path(name).exists():
        raise UserError(
            f"metrics: '{Path(name).resolve()}' would be run instead of the metric '{name}' of the evaluate "
            "library; rename it, or start from another folder"
        )


def _load(name: str, is_multilabel: bool) -> evaluate.Metric:
    try:
        return evaluate.load(
            name,
            config_name="multilabel" if is_multilabel else None,
            module_type="metric",
            # evaluate has an offline switch of its own and does not look at the Hub's.
            download_config=datasets.DownloadConfig(local_files_only=constants.HF_HUB_OFFLINE),
            keep_in_memory=True,
        )
    except ImportError as error:
        raise UserError(f"metrics: '{name}' needs other packages: {error}") from error
    # requests' errors are OSErrors too: no name server, no connection, no such page.
    except (OSError, TypeError) as error:
        raise UserError(
            f"metrics: no metric '{name}' in the cache of the evaluate library, and huggingface.co could not "
            f"be reached or has none either{_nearest(name)}; see https://huggingface.co/evaluate-metric for "
            "the names, and run once with a network to fill the cache"
        ) from error


def _nearest(name: str) -> str:
    matches = difflib.get_close_matches(name, FREQUENT_NAMES, n=1)
    return f"; did you mean '{matches[0]}'?" if matches and matches[0] != name else ""
