"""What the server of `forked_program` does once, so that no process of `hf-tasks` does it again."""

import gc

import forked_program  # noqa: F401
import sentence_transformers  # noqa: F401

import hf_tasks.tasks.image_classification.task
import hf_tasks.tasks.siamese.task
import hf_tasks.workflow.training  # noqa: F401
from hf_tasks.report.page import environment

for name in environment().list_templates(extensions=["html"]):
    environment().get_template(name)
# What is imported stays: no collection of a process looks at it, nor copies its pages.
gc.collect()
gc.freeze()
