"""A package of a user, as strict about types as mypy can be."""
