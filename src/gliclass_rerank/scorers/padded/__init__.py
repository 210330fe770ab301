"""Forward passes over padded batches."""
