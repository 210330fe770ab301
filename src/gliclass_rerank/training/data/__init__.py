"""Training records, examples made of them, and hard negatives."""
