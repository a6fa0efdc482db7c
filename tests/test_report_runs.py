"""The page of a real run: written by train, and drawn again by `report` from what is on disk."""

import re
import shutil

import pytest
from conftest import run_program


def test_a_run_leaves_its_page(digits_run):
    page = (digits_run / "report.html").read_text(encoding="utf-8")

    assert "validation pictures right" in page
    assert "sizes of" in page
    assert re.search(r'<section id="curves".*?<polyline', page, flags=re.DOTALL)


@pytest.mark.slow
def test_report_draws_the_same_page_again(digits, digits_run, tmp_path):
    run = tmp_path / digits_run.name
    shutil.copytree(digits_run, run)
    page = run / "report.html"
    before = page.read_bytes()
    page.unlink()

    done = run_program("report", run, folder=digits)

    assert done.returncode == 0, done.stderr
    assert page.read_bytes() == before


def test_report_of_no_run_is_refused(tmp_path):
    done = run_program("report", tmp_path, folder=tmp_path)

    assert done.returncode == 2
    assert "no finished run" in done.stderr
