"""What cannot be trained with the arguments that were given, said before the first step."""

from transformers import Trainer, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hf_tasks.contract.task import Splits
from hf_tasks.errors import RecipeError
from hf_tasks.recipe import Recipe


def require_integrations(recipe: Recipe, arguments: TrainingArguments) -> None:
    """Check that what `training.report_to` names is known and installed.

    Raises:
        RecipeError: it is not.
    """
    wanted = [name for name in arguments.report_to if name != "none"]
    there = get_available_reporting_integrations()
    problems = [
        f"{recipe.path}: training.report_to: found {name!r}, "
        + (
            "which is not installed: pip install it"
            if name in INTEGRATION_TO_CALLBACK
            else "which is not known"
        )
        + f", or take {' or '.join(map(repr, ['none', *there]))}"
        for name in wanted
        if name not in there
    ]
    if problems:
        raise RecipeError(problems)


def require_precision(recipe: Recipe, arguments: TrainingArguments) -> None:
    """Check that half precision would be used where it is asked for; transformers says nothing if not.

    Raises:
        RecipeError: it would not.
    """
    if arguments.fp16 and arguments.device.type == "cpu":
        raise RecipeError(
            [
                f"{recipe.path}: training.fp16: has no effect on the CPU, the only device here; "
                "leave it out, take training.bf16, or train on a GPU"
            ]
        )


def require_trainable(trainer: Trainer, recipe: Recipe) -> None:
    """Check that there is a batch to train on, and an optimizer.

    Raises:
        RecipeError: there is not.
    """
    problems = []
    arguments, examples = trainer.args, len(trainer.train_dataset)
    batch = arguments.train_batch_size * arguments.world_size
    if arguments.dataloader_drop_last and examples < batch:
        problems.append(
            f"dataloader_drop_last: leaves no batch of {examples} training examples, as one takes {batch}; "
            "lower training.per_device_train_batch_size"
        )
    try:
        trainer.get_optimizer_cls_and_kwargs(arguments, trainer.model)
    except (ImportError, ValueError) as error:
        problems.append(f"optim: {' '.join(str(error).split())}")
    if problems:
        raise RecipeError([f"{recipe.path}: training.{problem}" for problem in problems])


def rows_of_trial(splits: Splits, arguments: TrainingArguments) -> int:
    """Two batches; a row less where one would be alone in the second, which a network may not learn from."""
    size = arguments.train_batch_size
    there = min(2 * size, len(splits.train or ()))
    return there - 1 if there > 1 and there % size == 1 else 2 * size
