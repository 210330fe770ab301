"""Names of inputs and outputs of the two graphs of a model with independent labels.

One graph reads texts. The other scores labels against what was read, see `TextState`.
"""

from __future__ import annotations

IDS, LENGTHS = TEXT_INPUTS = ("ids", "lengths")
LABEL_INPUTS = ("label_ids", "widths")
VECTORS, LOGITS = "vectors", "logits"
POOLED = "pooled"


def state_names(layers: int) -> list[str]:
    """Names of what labels read of a text: its pooled vector, then keys and values of each layer."""
    return [POOLED, *(f"{kind}.{i}" for kind in ("keys", "values") for i in range(layers))]
