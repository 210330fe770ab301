"""Names of inputs and outputs of the two graphs of a model with independent labels.

One graph reads texts. The other scores labels against what was read, see `TextState`.
"""

from __future__ import annotations

IDS, LENGTHS = TEXT_INPUTS = ("ids", "lengths")
LABEL_INPUTS = ("label_ids", "widths")
VECTORS, LOGITS = "vectors", "logits"
LAYERS, STEPS, POOLED = "layers", "steps", "pooled"


def state_names(*, int8: bool) -> list[str]:
    """Names of what labels read of a text, without its length."""
    return [POOLED, LAYERS, STEPS] if int8 else [POOLED, LAYERS]
