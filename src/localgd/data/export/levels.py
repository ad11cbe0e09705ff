"""How values of a raw column are spelled, for programs that know no spellings: each text, and what it counts."""

from __future__ import annotations

from localgd.data.encodings import Category, Number
from localgd.data.recipe import Recipe
from localgd.data.spelling import places


def levels(column: Category) -> dict[str, int | None]:
    """Return the place among the levels of every text that means one, None for a text that counts nothing.

    Those are the categories as they are written, as training met them, in small and in capital letters, whole numbers
    with a fraction of 0, and, unless a missing value is unseen, the blank for it.

    Examples
    --------
    >>> levels(Category("ward", ("1", "Eye"), spellings=(("EYES", "Eye"),)))
    {'1': 0, '1.0': 0, 'EYE': 1, 'EYES': 1, 'Eye': 1, 'Eyes': 1, 'eye': 1, 'eyes': 1}
    """
    written = {*column.categories, *(one for one, _ in column.spellings)}
    texts = {form for text in written for form in (text, text.lower(), text.upper(), text.capitalize(), f"{text}.0")}
    texts |= {"true", "True", "TRUE", "false", "False", "FALSE", "0", "1"}
    known = sorted(texts)
    found: dict[str, int | None] = {
        text: place
        for text, place in zip(known, places(known, column.categories, column.spellings), strict=True)
        if place >= 0
    }
    if column.missing == "category":
        found[""] = len(column.categories)
    elif column.fill is not None:
        found[""] = column.categories.index(column.fill)
    elif column.missing == "zeros":
        found[""] = None
    return found


def positional(recipe: Recipe) -> bool:
    """Return whether the rows are an array, whose columns go by their places.

    Examples
    --------
    >>> positional(Recipe((Number("x0"), Number("x1")), (0, 1), True, False))
    True
    """
    numbers = all(isinstance(column, Number) for column in recipe.columns)
    return numbers and all(column.name == f"x{place}" for place, column in enumerate(recipe.columns))
