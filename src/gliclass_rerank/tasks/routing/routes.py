"""Route: a destination of queries, in words. RouteDecision: the choice among routes for a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gliclass_rerank.errors import InputError
from gliclass_rerank.tasks.routing.outcomes import Floats
from gliclass_rerank.unreadable import Places
from gliclass_rerank.validation import check_text, check_texts, is_blank


@dataclass(frozen=True, slots=True)
class Route:
    """A destination of queries.

    Args:
        name: its name in decisions.
        description: which queries belong there, in words; may be empty.
        examples: queries that belong there.

    Raises:
        InputError: an empty name, texts that no tokenizer can read, examples that are no sequence of strings.
    """

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.name, "route's name")
        check_text(self.description, f"description of {self.name!r}", may_be_empty=True)
        object.__setattr__(self, "examples", check_examples(self.name, self.examples))

    @property
    def label(self) -> str:
        """Label in the model's input: "name: description", or the name if there is no description."""
        return f"{self.name}: {self.description}" if not is_blank(self.description) else self.name


class Scores(dict[str, float]):
    """Probability by route: a read-only dict that can be copied, pickled and written as JSON."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("scores are read-only; change a copy of them: dict(scores)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Scores, (dict(self),)


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """The route chosen for a query.

    Attributes:
        name: the route, the best one if several apply. If the router abstained, its fallback (None without one).
        score: probability of that route, in [0, 1]. If the router abstained, that of the best route.
        scores: probability of each route, in the order of the routes. They are judged one by one and need not sum to 1.
        names: all routes that apply, in the order of the routes: one, unless several were allowed. If the router
            abstained, the fallback alone, or none.
        abstained: no route was likely enough.
        readable: the model's vocabulary covers words of the query and of the label or example that decided; otherwise
            the decision is meaningless.
    """

    name: str | None
    score: float
    scores: Mapping[str, float]
    names: tuple[str, ...]
    abstained: bool
    readable: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", Scores(self.scores))


def decide(
    names: Sequence[str],
    logits: Floats,
    probabilities: Floats,
    thresholds: Floats,
    *,
    multi: bool = False,
    fallback: str | None = None,
    readable: bool = True,
) -> RouteDecision:
    """Choose the route of one query.

    Args:
        names: of the routes.
        logits: shape (routes,). They order the routes, since they still differ when probabilities are 1.
        probabilities: in [0, 1], shape (routes,).
        thresholds: shape (routes,); a probability equal to its threshold suffices.
        multi: choose all routes that reach their threshold instead of the best one if it does.
        fallback: name returned if none does.
        readable: value of `RouteDecision.readable`.
    """
    best = int(logits.argmax())
    chosen = [i for i in (range(len(names)) if multi else (best,)) if probabilities[i] >= thresholds[i]]
    top = max(chosen, key=lambda i: logits[i], default=best)
    instead = () if fallback is None else (fallback,)
    return RouteDecision(
        name=names[top] if chosen else fallback,
        score=float(probabilities[top]),
        scores=dict(zip(names, probabilities.tolist(), strict=True)),
        names=tuple(names[i] for i in chosen) if chosen else instead,
        abstained=not chosen,
        readable=readable,
    )


def examples_of(routes: Sequence[Route]) -> list[str]:
    """All examples of routes, each once."""
    return list(dict.fromkeys(text for route in routes for text in route.examples))


# Checks


def check_examples(name: str, examples: object) -> tuple[str, ...]:
    """Return the examples of a route if they are a sequence of texts. Errors as for `check_texts`."""
    return check_texts(examples, f"{name!r}, example", plural=f"examples of {name!r}")


def check_routes(routes: object) -> tuple[Route, ...]:
    """Return ``routes`` if they are a sequence of at least one `Route`, names each once, else raise `InputError`."""
    if not isinstance(routes, Sequence):
        raise InputError(f"routes: expected a sequence of Route, got {type(routes).__name__}")
    if not routes:
        raise InputError("routes: expected at least one, got none")
    seen: set[str] = set()
    for i, route in enumerate(routes):
        if not isinstance(route, Route):
            raise InputError(f"route {i}: expected Route(name, description, examples), got {route!r:.60}")
        if route.name in seen:
            raise InputError(f"route {i}: the name {route.name!r} is another route's as well; give each its own")
        seen.add(route.name)
    return tuple(routes)


def place_of(name: object, routes: Sequence[Route]) -> int:
    """The index of the route of this name. Raises `InputError` without one."""
    names = [route.name for route in routes]
    if not isinstance(name, str) or name not in names:
        raise InputError(f"name: expected one of {', '.join(map(repr, names)):.80}, got {name!r:.60}")
    return names.index(name)


def check_names(names: object, queries: int, routes: Sequence[Route]) -> tuple[str | None, ...]:
    """Return ``names`` if they are a route's name or None for each of so many queries, else raise `InputError`."""
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != queries:
        got = len(names) if isinstance(names, Sequence) else type(names).__name__
        raise InputError(f"names: expected one, or None, for each of the {queries} queries, got {got}")
    if not names:
        raise InputError("queries: expected at least one, with the name of its route, got none")
    known = {route.name for route in routes}
    for i, name in enumerate(names):
        if name is not None and (not isinstance(name, str) or name not in known):
            shown = ", ".join(repr(route.name) for route in routes)
            raise InputError(f"name {i}: expected None or one of {shown:.80}, got {name!r:.60}")
    return tuple(names)


def saved_routes(entries: Sequence[Mapping[str, Any]]) -> list[Route]:
    """The routes of a file, whose entries have the fields of `Route`."""
    routes = []
    for place, fields in enumerate(entries):
        try:
            routes.append(Route(**fields))
        except InputError as error:
            raise InputError(f"routes[{place}]: {error}") from error
    return routes


def places_of(routes: Sequence[Route]) -> Places:
    """The texts of routes, with names."""
    for route in routes:
        yield f"route {route.name!r:.60}", route.label
        yield from ((f"example of {route.name!r:.60}", example) for example in route.examples)
