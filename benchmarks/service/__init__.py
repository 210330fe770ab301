"""Load tests of the HTTP service."""
