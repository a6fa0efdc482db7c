"""Where rows come from, as a recipe says it: a table, class folders, or a Hub data set."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class Section(BaseModel):
    """A part of a recipe: unknown keys are mistakes, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TableSource(Section):
    """Rows of a csv, tsv, parquet or jsonl file."""

    table: str = Field(min_length=1, description="Path of a .csv, .tsv, .parquet or .jsonl file.")
    images: str | None = Field(
        None, description="Folder that picture paths are relative to; the table's own if left out."
    )
    encoding: str = Field(
        "utf-8", description="Text encoding of a csv, tsv or jsonl file; a byte order mark is skipped."
    )


class FolderSource(Section):
    """Pictures in one folder per class."""

    folder: str = Field(min_length=1, description="Folder with a sub-folder of pictures for each class.")


class HubSource(Section):
    """A split of a data set on the Hub, or of one saved in a local folder."""

    hub: str = Field(min_length=1, description="Data set name on the Hub, or a local data set folder.")
    config: str | None = Field(None, description="Configuration of the data set, where it has several.")
    split: str = Field("train", description="Split to take.")


SOURCE_KINDS = {"table": TableSource, "folder": FolderSource, "hub": HubSource}


def source_kind(source: Any) -> str | None:
    """The key among SOURCE_KINDS that a raw mapping or a source holds; None when there is none."""
    if isinstance(source, BaseModel):
        return next((kind for kind, model in SOURCE_KINDS.items() if isinstance(source, model)), None)
    if isinstance(source, dict):
        return next((kind for kind in SOURCE_KINDS if kind in source), None)
    return None


Source = Annotated[
    Annotated[TableSource, Tag("table")]
    | Annotated[FolderSource, Tag("folder")]
    | Annotated[HubSource, Tag("hub")],
    Discriminator(
        source_kind,
        custom_error_type="source",
        custom_error_message="wanted one of {{table: FILE}}, {{folder: DIR}} or {{hub: NAME}}",
    ),
]


def source_name(source: TableSource | FolderSource | HubSource) -> str:
    """The file, folder or data set as the recipe names it, for messages."""
    if isinstance(source, TableSource):
        return source.table
    if isinstance(source, FolderSource):
        return source.folder
    return f"{source.hub} (split {source.split})"
