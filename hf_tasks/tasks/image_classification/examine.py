"""What is wrong with the rows of a recipe, all of it together and before training."""

from collections.abc import Sequence

import datasets

from hf_tasks.contract.examination import Examination, Finding, FoundRow
from hf_tasks.data.duplicate_findings import find_duplicates
from hf_tasks.data.examined import ExaminedPictures
from hf_tasks.data.inspect import slow_progress
from hf_tasks.data.label_findings import Labels, find_unfit_cells
from hf_tasks.data.labels import label_texts, read_fit_labels
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, Source, source_name
from hf_tasks.errors import DataError
from hf_tasks.images.files import file_faults, picture_files, usable_contents
from hf_tasks.images.findings import find_near_duplicates, find_picture_faults
from hf_tasks.images.look import look_at_all
from hf_tasks.tasks.image_classification.settings import Columns, Settings


def examine(settings: Settings, everything: bool, seed: int) -> Examination:
    """Look at all labels and files, and decode the pictures of a sample that holds each class, or all."""
    data, findings = settings.data, list[Finding]()
    columns = data.columns
    seen, unfit = ExaminedPictures(everything, seed), list[FoundRow]()
    for section, source in _sections(settings).items():
        try:
            loaded = load_rows(
                source,
                key=f"data.{section}",
                image_column=columns.image,
                allow_outside=data.allow_outside,
            )
            where = f"data.{section} ({source_name(source)})"
            labels_N, reasons = _labels(loaded, source, columns, where=where)
        except DataError as error:
            findings.append(Finding.of_error(error, kind=f"data.{section} cannot be used"))
            continue
        unfit += [
            FoundRow(section, place + 1, f"{loaded[place]['path']}: {reason}", is_left_out=True)
            for place, reason in sorted(reasons.items())
        ]
        column = columns.labels if isinstance(columns.labels, str) else columns.label
        seen.add(section, source, loaded, labels_N, image_column=columns.image, label_column=column)
    files = picture_files(seen.images)
    facts = file_faults(files)
    facts.update(zip(seen.sampled_places, look_at_all(seen.sampled, slow_progress), strict=True))
    places = sorted(facts)
    rows, known = [seen.rows[place] for place in places], [facts[place] for place in places]
    findings += [
        *find_unfit_cells(unfit),
        *seen.label_faults(least_classes=2 if columns.labels is None else 1),
    ]
    findings += find_picture_faults(rows, known, image_size=settings.model.image_size)
    findings += find_duplicates(seen.rows, usable_contents(files, facts), seen.labels, what="pictures")
    findings += find_near_duplicates(rows, known, [seen.labels[place] for place in places])
    return Examination(findings, seen.sources)


def _sections(settings: Settings) -> dict[str, Source]:
    data = settings.data
    named = {"train": data.train, "validation": data.validation}
    return {section: source for section, source in named.items() if not isinstance(source, float)}


def _labels(
    rows: datasets.Dataset, source: Source, columns: Columns, *, where: str
) -> tuple[Sequence[Labels | None], dict[int, str]]:
    """The classes of each row, None where a label is missing; and by place what a cell of 0 and 1 holds."""
    if columns.labels is None:
        column = "label" if isinstance(source, FolderSource) else columns.label
        texts = label_texts(rows, column, where=where).to_pylist()
        return [None if text is None else (text,) for text in texts], {}
    memberships, reasons = read_fit_labels(rows, columns.labels, where=where)
    names: list[Labels] = [()] * len(rows)
    for row, name in zip(memberships.rows_M.tolist(), memberships.names_M.to_pylist(), strict=True):
        names[row] = (*names[row], name)
    return names, reasons
