"""Tasks: each turns a question into score requests, and their logits into an answer."""
