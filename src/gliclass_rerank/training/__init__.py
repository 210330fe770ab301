"""Training and evaluation of GLiClass models. Needs the extra "train"."""
