"""Which columns of a table are used, and the mistakes in naming them."""

from collections.abc import Mapping, Sequence

from datasets import Features, Image

from hf_tasks.data.problems import nearest
from hf_tasks.errors import DataError

# Every row of pictures has these; a table's own columns of these names give way to them.
ROW_COLUMNS = ("image", "path", "row")
DEFAULT_PICTURE_COLUMN = "image_path"
NAMES_SHOWN = 20


def require_columns(
    wanted: Mapping[str, str],
    available: Sequence[str],
    *,
    where: str,
    ways_out: Mapping[str, str] | None = None,
) -> None:
    """Check that the columns a recipe names are there.

    Args:
        wanted: recipe key to the column it names, as `data.columns.label` to `label`.
        available: the columns there are.
        where: the file or data set, for the message.
        ways_out: recipe key to what else could be meant where its column is missing.

    Raises:
        DataError: names every missing column, with the nearest that exists.
    """
    more = ", ..." if len(available) > NAMES_SHOWN else ""
    shown = ", ".join(available[:NAMES_SHOWN]) + more if available else "none"
    missing = [
        f"{key}: no column '{name}' in {where} (it has {shown}){nearest(name, available)}"
        f"{(ways_out or {}).get(key, '')}"
        for key, name in wanted.items()
        if name not in available
    ]
    if missing:
        raise DataError("\n".join(missing))


def require_free_names(wanted: Mapping[str, str], *, where: str) -> None:
    """Check that no label column bears a name that every row of pictures already has.

    Raises:
        DataError: a wanted column is called image, path or row.
    """
    taken = [
        f"{key}: a column called '{name}' cannot hold labels, as each row has an {', a '.join(ROW_COLUMNS)} "
        f"of its own; rename the column in {where}"
        for key, name in wanted.items()
        if name in ROW_COLUMNS
    ]
    if taken:
        raise DataError("\n".join(taken))


def picture_column(features: Features, named: str | None, *, where: str) -> str:
    """The column of pictures: the one named, else `image_path`, else the only one that holds pictures.

    Raises:
        DataError: the named column is not there, or none or several could be meant.
    """
    if named is not None:
        require_columns({"data.columns.image": named}, list(features), where=where)
        return named
    if DEFAULT_PICTURE_COLUMN in features:
        return DEFAULT_PICTURE_COLUMN
    pictures = [name for name, feature in features.items() if _holds_pictures(feature)]
    if len(pictures) == 1:
        return pictures[0]
    if pictures:
        raise DataError(
            f"data.columns.image: {where} has several columns of pictures ({', '.join(pictures)}); "
            "name the one to use"
        )
    require_columns({"data.columns.image": DEFAULT_PICTURE_COLUMN}, list(features), where=where)
    raise AssertionError("the default column is not among the features")


def _holds_pictures(feature: object) -> bool:
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
