"""What the server of `forked_program` does once, so that no process of `hf-tasks` does it again."""

import gc

import forked_program  # noqa: F401
import sentence_transformers  # noqa: F401

import hf_tasks.workflow.training  # noqa: F401
from hf_tasks.export import latency
from hf_tasks.recipe import recipe_schema
from hf_tasks.registry import TASKS, load_task
from hf_tasks.report.page import environment

latency.SECONDS = 0.02  # as in conftest
for task in TASKS:
    load_task(task)
    recipe_schema(task)
for name in environment().list_templates(extensions=["html"]):
    environment().get_template(name)
# What is imported stays: no collection of a process looks at it, nor copies its pages.
gc.collect()
gc.freeze()
