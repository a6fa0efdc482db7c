"""The Dockerfile and compose.yaml: read and held to rules; their commands are given to their programs."""

import argparse
import json
import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from typer.testing import CliRunner

from hf_tasks.cli import app

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its argument, lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def arguments(name: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == name]


def test_the_base_is_pinned_and_the_last_user_is_not_root():
    [base] = arguments("FROM")

    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert arguments("USER") == ["trainer"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))


def test_nothing_needs_sudo_and_no_cache_is_left_in_a_layer():
    run = " ".join(arguments("RUN"))

    assert "sudo" not in run
    assert "apt-get" not in run
    assert "PIP_NO_CACHE_DIR=1" in " ".join(arguments("ENV"))


def test_torch_for_a_processor_or_for_cuda_is_one_argument_of_the_build():
    assert arguments("ARG") == ["TORCH=cpu"]
    assert any("whl/${TORCH}" in command for command in arguments("RUN"))
    assert SERVICES["train"]["build"]["args"] == {"TORCH": "${TORCH:-cpu}"}


def test_what_is_installed_is_there_and_sent_to_the_build():
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [source for copy in arguments("COPY") for source in copy.split()[:-1]]
    extras = re.search(r'"/source\[(.*?)\]"', " ".join(arguments("RUN")))[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert sent[0] == "**"
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in sent
    assert set(extras) <= set(project["optional-dependencies"])


def test_the_program_is_started_without_a_shell():
    (entrypoint,), (command,) = arguments("ENTRYPOINT"), arguments("CMD")

    done = CliRunner().invoke(app, json.loads(command))

    assert json.loads(entrypoint) == ["hf-tasks"]
    assert done.exit_code == 0
    assert "train" in done.output


def test_the_trainer_of_compose_is_given_words_that_the_program_knows(tmp_path):
    command, _, option = SERVICES["train"]["command"]

    done = CliRunner().invoke(app, [command, str(tmp_path / "no.yaml"), option])

    assert "no.yaml" in str(done.exception)  # it looked for the recipe


@pytest.mark.slow
def test_mlflow_and_tensorboard_know_the_options_they_are_given():
    from mlflow.cli import server as command
    from tensorboard.plugins.core.core_plugin import CorePluginLoader

    context = command.make_context("server", list(SERVICES["mlflow"]["command"][1:]))
    parser = argparse.ArgumentParser()
    CorePluginLoader().define_flags(parser)
    flags = parser.parse_args(SERVICES["tensorboard"]["command"])

    assert SERVICES["mlflow"]["command"][0] == "server"
    assert (context.params["port"], context.params["backend_store_uri"]) == (
        5000,
        "sqlite:////cache/mlflow.db",
    )
    assert (flags.logdir, flags.port) == ("/data/runs", 6006)


def test_the_trainer_waits_for_the_server_it_tells():
    train, mlflow = SERVICES["train"], SERVICES["mlflow"]

    assert train["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert train["depends_on"]["mlflow"]["condition"] == "service_healthy"
    assert mlflow["ports"] == ["127.0.0.1:5000:5000"]
    compile(mlflow["healthcheck"]["test"][3], "healthcheck", "exec")


def test_every_volume_is_declared():
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}

    assert used - {"."} == set(COMPOSE["volumes"])
