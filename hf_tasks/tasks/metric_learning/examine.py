"""What is wrong with the rows of a recipe, all of it together and before training."""

from collections.abc import Hashable, Mapping, Sequence

from hf_tasks.contract.examination import Examination, Finding
from hf_tasks.data.duplicate_findings import find_duplicates
from hf_tasks.data.examined import ExaminedPictures
from hf_tasks.data.inspect import slow_progress
from hf_tasks.data.labels import label_texts
from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import FolderSource, Source, source_name
from hf_tasks.errors import DataError
from hf_tasks.images.files import PictureFile, file_faults, picture_files, usable_contents
from hf_tasks.images.findings import find_near_duplicates, find_picture_faults
from hf_tasks.images.look import PictureFacts, look_at_all
from hf_tasks.tasks.metric_learning.settings import Settings


def examine(settings: Settings, everything: bool, seed: int) -> Examination:
    """Look at all labels and files, and decode the pictures of a sample that holds each class, or all."""
    data, findings = settings.data, list[Finding]()
    columns = data.columns
    seen = ExaminedPictures(everything, seed)
    for section, source in _sections(settings).items():
        try:
            loaded = load_rows(
                source,
                key=f"data.{section}",
                image_column=columns.image,
                allow_outside=data.allow_outside,
            )
            column = "label" if isinstance(source, FolderSource) else columns.label
            texts = label_texts(loaded, column, where=f"data.{section} ({source_name(source)})")
        except DataError as error:
            findings.append(Finding.of_error(error, kind=f"data.{section} cannot be used"))
            continue
        labels_N = [None if text is None else (text,) for text in texts.to_pylist()]
        seen.add(section, source, loaded, labels_N, image_column=columns.image, label_column=columns.label)
    files = picture_files(seen.images)
    facts = file_faults(files)
    facts.update(zip(seen.sampled_places, look_at_all(seen.sampled, slow_progress), strict=True))
    places = sorted(facts)
    rows, known = [seen.rows[place] for place in places], [facts[place] for place in places]
    findings += seen.label_faults(are_classes_shared=False)
    findings += find_picture_faults(rows, known, image_size=settings.model.image_size)
    findings += find_duplicates(seen.rows, _contents(files, facts), seen.labels, what="pictures")
    findings += find_near_duplicates(rows, known, [seen.labels[place] for place in places])
    return Examination(findings, seen.sources)


def _sections(settings: Settings) -> dict[str, Source]:
    data = settings.data
    named = {
        "train": data.train, "gallery": data.gallery, "query": data.query, "validation": data.validation,
    }  # fmt: skip
    return {section: source for section, source in named.items() if source is not None}


def _contents(files: Sequence[PictureFile], facts: Mapping[int, PictureFacts]) -> list[Hashable | None]:
    """What is compared: of a file that is named twice, as one that is a query and in the gallery, once."""
    seen: set[str] = set()
    contents = usable_contents(files, facts)
    for place, file in enumerate(files):
        if file.path is not None and not file.content.is_valid:
            contents[place] = None if file.path in seen else contents[place]
            seen.add(file.path)
    return contents
