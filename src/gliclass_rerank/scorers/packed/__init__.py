"""Forward passes over packed batches, without padding."""
