"""GLiClassRouter: sends each input to the Runnable whose description fits it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSerializable,
    run_in_executor,
)
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import get_executor_for_config
from langchain_core.runnables.utils import ConfigurableFieldSpec, gather_with_concurrency, get_unique_config_specs
from pydantic import ConfigDict, Field, PlainValidator, model_validator
from typing_extensions import Self

from gliclass_rerank import OptionError
from gliclass_rerank_langchain.route_options import Names, RouteOptions
from gliclass_rerank_langchain.shares import joined, shares_of


def _runnables(branches: object) -> dict[str, Runnable[Any, Any]]:
    if not isinstance(branches, Mapping):
        raise ValueError(f"expected a dict from names to Runnables, got {type(branches).__name__}")
    return {name: coerce_to_runnable(branch) for name, branch in branches.items()}


class GLiClassRouter(RouteOptions, RunnableSerializable[Any, Any]):
    """Runs the branch whose route fits the query best, or all that fit.

        router = GLiClassRouter(
            routes=[Route("billing", "invoices and refunds"), Route("tech", "errors and configuration")],
            branches={"billing": billing_chain, "tech": tech_chain, "other": llm},
            threshold=0.3,
            fallback="other",
        )
        router.invoke({"question": "Why was I charged twice?"})

    Without branches it only decides, for example in a langgraph edge to nodes named like the routes:

        graph.add_conditional_edges("ask", GLiClassRouter(routes=routes, fallback="other").decide)

    A branch gets the whole input and the options bound to the router. Its run is a child of the router's. With
    ``multi`` the output is a dict from names to outputs. A stream is the branch's own. A batch is routed in one call of
    the scorer, and each branch gets its share as a batch.

    Args:
        branches: Runnables by name, for each route and for the fallback, or objects that can become one (functions,
            dicts). Excluded from serialisation.
        routes, router, key, multi, threshold, fallback: see `RouteOptions`.
        model, scorer: see `ModelOptions`.

    Raises:
        InputError: when invoked: no route is likely enough and there is no fallback, or an input without a query.
        OptionError: when invoked: no branch with the chosen name.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    branches: Annotated[Mapping[str, RunnableLike[Any, Any]], PlainValidator(_runnables)] = Field(
        default_factory=dict, exclude=True
    )

    @model_validator(mode="after")
    def _a_branch_for_each(self) -> Self:
        names = [route.name for route in (self.router or self).routes]
        names += [] if self.fallback is None else [self.fallback]
        if self.branches and (missing := [name for name in names if name not in self.branches]):
            raise ValueError(f"branches: expected one for each route and the fallback, got none for {missing}")
        return self

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Configurable fields of the branches."""
        return get_unique_config_specs(
            spec for branch in _runnables(self.branches).values() for spec in branch.config_specs
        )

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Run the chosen branch. Further options are passed to it."""
        return self._runnable().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Run the chosen branch. The choice is made in a thread."""
        return await self._runnable().ainvoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Stream the chosen branch."""
        return self._runnable().stream(input, config, **kwargs)

    async def astream(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Stream the chosen branch. The choice is made in a thread."""
        async for chunk in self._runnable().astream(input, config, **kwargs):
            yield chunk

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Route all inputs in one call of the scorer, and run each branch on its share as a batch."""
        run = partial(self._batch, return_exceptions=return_exceptions)
        return self._batch_with_config(run, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Route all inputs in one call of the scorer, in a thread, and run each branch on its share as a batch."""
        run = partial(self._abatch, return_exceptions=return_exceptions)
        return await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def _runnable(self) -> RunnableLambda[Any, Any]:
        """Return a function that returns a Runnable, which LangChain then runs once as a child run."""

        def choose(input: Any, **options: Any) -> Runnable[Any, Any]:  # noqa: A002
            return self._branch(self._choose(input), options)

        async def achoose(input: Any, **options: Any) -> Runnable[Any, Any]:  # noqa: A002
            return self._branch(await run_in_executor(None, self._choose, input), options)

        return RunnableLambda(choose, achoose, name=self.get_name())

    def _branch(self, names: Names, options: Mapping[str, Any]) -> Runnable[Any, Any]:
        """Return the branch of a name, or with ``multi`` all named branches in parallel, with options bound to each."""
        if unknown := [name for name in names if name not in self.branches]:
            known = ", ".join(map(repr, self.branches)) or "none"
            raise OptionError(f"branches: expected one for {unknown[0]!r}, got {known:.80}")
        chosen = _runnables({name: self.branches[name] for name in names})
        if options:
            chosen = {name: branch.bind(**options) for name, branch in chosen.items()}
        return RunnableParallel(chosen) if self.multi else chosen[names[0]]

    def _batch(
        self, inputs: list[Any], config: list[RunnableConfig], *, return_exceptions: bool, **options: Any
    ) -> list[Any]:
        chosen = self._choose_each(inputs, return_exceptions=return_exceptions)
        shares = shares_of(chosen)

        def run(names: Names) -> list[Any]:
            share = [inputs[i] for i in shares[names]], [config[i] for i in shares[names]]
            return self._branch(names, options).batch(*share, return_exceptions=return_exceptions)

        with get_executor_for_config({"max_concurrency": _branches_at_a_time(config)}) as executor:
            return joined(chosen, shares, list(executor.map(run, list(shares))))

    async def _abatch(
        self, inputs: list[Any], config: list[RunnableConfig], *, return_exceptions: bool, **options: Any
    ) -> list[Any]:
        choose = partial(self._choose_each, inputs, return_exceptions=return_exceptions)
        chosen = await run_in_executor(None, choose)
        shares = shares_of(chosen)

        async def run(names: Names) -> list[Any]:
            share = [inputs[i] for i in shares[names]], [config[i] for i in shares[names]]
            return await self._branch(names, options).abatch(*share, return_exceptions=return_exceptions)

        outputs = await gather_with_concurrency(_branches_at_a_time(config), *map(run, shares))
        return joined(chosen, shares, outputs)


def _branches_at_a_time(config: Sequence[RunnableConfig]) -> int | None:
    # A branch's batch keeps to the limit on its own, but two branches in parallel would exceed it.
    return 1 if config[0].get("max_concurrency") else None
