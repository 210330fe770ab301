"""Nested labels: flatten them for the model as upstream does, and put their scores back into the same nesting."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from gliclass_rerank.errors import InputError
from gliclass_rerank.validation import check_text

NestedLabels: TypeAlias = Mapping[str, Collection[str]]
"""Mappings of any depth, with a sequence of labels, or one label alone, at each end.

The type is loose because a mapping of strings is a collection of strings too. Mixed depths are inferred as this.
"""
Labels: TypeAlias = Sequence[str] | NestedLabels
ScoreTree: TypeAlias = "dict[str, float | ScoreTree]"

DEEPEST = 32  # levels; a deeper mapping probably contains itself


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of one text, checked.

    Attributes:
        where: their name in errors.
        paths: the keys above each label and the label itself, in the order given; at least one, duplicates in place.
        names: labels in the model's input: each path, joined by the separator.
    """

    where: str
    paths: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]

    @property
    def nested(self) -> bool:
        return len(self.paths[0]) > 1

    def check_unique(self) -> None:
        """Raise `InputError` if a label occurs twice at one place: a tree has room for one score there."""
        seen = set[tuple[str, ...]]()
        for path in self.paths:
            if path in seen:
                raise InputError(
                    f"{self.where}: {path[-1]!r} is twice below {' / '.join(path[:-1])!r}, and a tree has room for "
                    "one score; leave one out, or read .scores"
                )
            seen.add(path)

    def tree(self, scores: Sequence[float]) -> ScoreTree:
        """Arrange scores, one per label, in the nesting of the labels."""
        tree: ScoreTree = {}
        for path, score in zip(self.paths, scores, strict=True):
            branch: Any = tree
            for key in path[:-1]:
                branch = branch.setdefault(key, {})
            branch[path[-1]] = score
        return tree


def label_sets(labels: Labels | Sequence[Labels], count: int, separator: str = ".") -> list[LabelSet]:
    """Check the labels of ``count`` texts, flatten nested ones, and assign each text its own.

    Args:
        labels: a sequence of strings or a nested mapping for all texts, or a sequence of these, one per text.
        count: number of texts.
        separator: joins the levels of a nested label in its name.

    Raises:
        InputError: no labels, an empty one, another type, or another number of sets than texts.
    """
    if is_list(labels) and labels and all(isinstance(item, Mapping) or is_list(item) for item in labels):
        check_count(labels, count, "labels")
        return [_label_set(item, f"labels of text {i}", separator) for i, item in enumerate(labels)]
    return [_label_set(labels, "labels", separator)] * count


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether ``value`` is a sequence other than a string or bytes."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def check_count(values: Sequence[object], count: int, what: str) -> None:
    """Raise `InputError` unless there is one of ``values`` for each text."""
    if len(values) != count:
        texts = "the text" if count == 1 else f"each of the {count} texts"
        raise InputError(f"{what}: expected one for {texts}, got {len(values)}")


def _label_set(labels: object, where: str, separator: str) -> LabelSet:
    if isinstance(labels, str):  # each character would become a label
        raise InputError(f"{where}: expected a sequence of strings or a mapping of such, got str; put it in a list")
    paths = tuple(_paths(labels, where, ()))
    return LabelSet(where, paths, tuple(separator.join(path) for path in paths))


def _paths(labels: object, where: str, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if len(above) > DEEPEST:
        raise InputError(f"{where[:60]}...: expected at most {DEEPEST} levels; does the mapping contain itself?")
    if isinstance(labels, str):
        yield (*above, check_text(labels, f"{where}, label"))
    elif isinstance(labels, Mapping):
        for key, value in labels.items():
            check_text(key, f"{where}, key")
            yield from _paths(value, f"{where}[{key!r}]", (*above, key))
    elif is_list(labels):
        for i, label in enumerate(labels):
            yield (*above, check_text(label, f"{where}, label {i}"))
    else:
        raise InputError(f"{where}: expected a sequence of strings or a mapping of such, got {type(labels).__name__}")
    if not labels:
        raise InputError(f"{where}: expected at least one label, got none")
