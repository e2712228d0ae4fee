"""x."""


def check_source(function, name, parameters) -> None:
    """X."""
