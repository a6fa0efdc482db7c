"""Where rows come from, as a recipe says it: a table, class folders, or a Hub data set."""

from typing import Annotated, Any, Literal

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


class TextTable(Section):
    """Rows of texts in a csv, tsv, parquet or jsonl file."""

    table: str = Field(min_length=1, description="Path of a .csv, .tsv, .parquet or .jsonl file.")
    encoding: str = Field(
        "utf-8", description="Text encoding of a csv, tsv or jsonl file; a byte order mark is skipped."
    )


class TextFile(Section):
    """A plain text file of documents."""

    text: str = Field(min_length=1, description="Path of a text file.")
    documents: Literal["lines", "paragraphs"] = Field(
        "lines", description="A document is a line, or what stands between blank lines."
    )
    encoding: str = Field("utf-8", description="Text encoding; a byte order mark is skipped.")


SOURCE_KINDS: dict[str, tuple[type[BaseModel], ...]] = {
    "table": (TableSource, TextTable),
    "folder": (FolderSource,),
    "hub": (HubSource,),
    "text": (TextFile,),
}


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


TextRows = Annotated[
    Annotated[TextTable, Tag("table")] | Annotated[HubSource, Tag("hub")],
    Discriminator(
        source_kind,
        custom_error_type="source",
        custom_error_message="wanted one of {{table: FILE}} or {{hub: NAME}}",
    ),
]
Documents = Annotated[
    Annotated[TextFile, Tag("text")] | Annotated[TextTable, Tag("table")] | Annotated[HubSource, Tag("hub")],
    Discriminator(
        source_kind,
        custom_error_type="source",
        custom_error_message="wanted one of {{text: FILE}}, {{table: FILE}} or {{hub: NAME}}",
    ),
]


def source_name(source: TableSource | FolderSource | HubSource | TextTable | TextFile) -> str:
    """The file, folder or data set as the recipe names it, for messages."""
    if isinstance(source, TableSource | TextTable):
        return source.table
    if isinstance(source, FolderSource):
        return source.folder
    if isinstance(source, TextFile):
        return source.text
    return f"{source.hub} (split {source.split})"
