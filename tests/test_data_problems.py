"""Problems of one kind, as they are shown."""

from hf_tasks.data.problems import LONGEST, SHOWN, Findings


def test_a_very_long_example_keeps_its_beginning_and_its_end():
    found = Findings("missing files", "bring them back")
    found.add("row 1, " + 5000 * "x" + ".png")

    (shown,) = found.first

    assert len(shown) < LONGEST + 10
    assert shown.startswith("row 1, xxx")
    assert shown.endswith("xxx.png")


def test_all_are_counted_and_the_first_are_shown_a_line_each():
    found = Findings("missing files", "bring them back")
    for number in range(SHOWN + 2):
        found.add(f"row {number},\nbroken")

    lines = str(found).splitlines()

    assert lines[0] == f"missing files: {SHOWN + 2}; bring them back"
    assert lines[1] == "  row 0,\\nbroken"
    assert lines[-1] == "  and 2 more"
