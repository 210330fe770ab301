"""Routing: a query and described routes in, the route to take out."""
