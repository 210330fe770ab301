"""Decisions over two wire formats: TypeSafe's `/v1/systemone` and OpenAI's `/v1/decisions`."""
