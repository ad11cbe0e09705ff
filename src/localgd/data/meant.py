"""What labels and categories of rows mean to a model that has others, where somebody says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from localgd.data.coding import labels_at, meant_labels
from localgd.data.columns import check_known
from localgd.data.encodings import Category
from localgd.data.recipe import Recipe
from localgd.data.spelling import LabelMaps, Speller, listed, places
from localgd.data.table import Table
from localgd.errors import shown


@dataclass(frozen=True)
class Meant:
    """What labels and categories mean, of rows that others than those of training wrote.

    Parameters
    ----------
    labels : mapping from label to class
        Like ``{"no": 0, "yes": 1}``; what it does not name stays as it is.
    categories : mapping from column to such a mapping
        The same for columns of categories.
    label_maps : tuple of (node, pairs)
        What labels mean at one node only; `labels` is about what they mean there.
    """

    labels: Mapping[Any, Any] = field(default_factory=dict)
    categories: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    label_maps: LabelMaps = ()

    def check(self, recipe: Recipe) -> None:
        """Refuse what a recipe has no class, column or category for.

        Raises
        ------
        ValueError
            Names the map, and what it maps.

        Examples
        --------
        >>> Meant({"yes": 2}).check(Recipe((), (0, 1), True, False))
        Traceback (most recent call last):
        ValueError: label_map maps 'yes' to 2, which is none of the model's classes (0, 1)
        """
        if (self.labels or self.label_maps) and not recipe.classes:
            raise ValueError("label_map is for classes, and the model predicts numbers; leave it out")
        _check("label_map", self.labels, recipe.classes, recipe.spellings, "classes")
        known = (*recipe.classes, *self.labels)
        for node, pairs in self.label_maps:
            _check(f"label_map of node {node!r}", dict(pairs), known, recipe.spellings, "classes")
        own = {column.name: column for column in recipe.columns if isinstance(column, Category)}
        check_known("category_map", self.categories, list(own), "the model", "a column of categories")
        for name, mapping in self.categories.items():
            where = f"category_map of column {name!r}"
            _check(where, mapping, own[name].categories, own[name].spellings, "categories")

    def __call__(self, table: Table) -> Table:
        """Return a table with what its labels and categories mean in their place.

        Examples
        --------
        >>> from numpy import array
        >>> table = Table("a", pl.DataFrame({"ward": ["N", None]}), array(["yes", "No"]))
        >>> found = Meant({"no": 0, "yes": 1}, {"ward": {"n": "north"}})(table)
        >>> found.labels.tolist(), found.features["ward"].to_list()
        ([1, 0], ['north', None])
        """
        frame: Any = table.features
        table = meant_labels(labels_at(table, self.label_maps), self.labels)
        for name, mapping in self.categories.items():
            if not isinstance(frame, pl.DataFrame) or name not in frame.columns:
                continue  # the recipe says what is lacking
            speller = Speller(f"column {name!r}", ("category_map", f"--category-map {name}:"), mapping)
            text = table.text(frame[name])
            met = text.drop_nulls().unique().to_list()
            meant = [str(speller.meant(one)) for one in met]
            column = text.replace_strict(met, meant, default=None, return_dtype=pl.String)
            frame = frame.with_columns(column.alias(name))
            written = {other: column for other, column in table.codes.items() if other != name}
            table = replace(table, features=frame, codes=written)
        return table


def _check(what: str, mapping: Mapping[Any, Any], known: Any, spellings: Any, noun: str) -> None:
    for one, to in mapping.items():
        if places([to], known, spellings) == [-1]:
            raise ValueError(
                f"{what} maps {shown(one)} to {shown(to)}, which is none of the model's {noun} ({listed(known)})"
            )
