"""Claims with evidence: of entailment sets, changed by rule, and made by template."""
