"""One small translator a dialect: its body to a call of the library, and the result to what its clients read."""
