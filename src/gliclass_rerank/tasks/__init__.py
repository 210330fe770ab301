"""Tasks: rerank, classify, route and check facts. Each builds score requests and turns their logits into results."""
