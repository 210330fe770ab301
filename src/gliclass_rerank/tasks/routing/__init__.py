"""Routing: choose among described routes for a query."""
