"""The checks, one module per section of the list."""

from importlib import import_module
from pkgutil import iter_modules


def load() -> None:
    """Registers every check, in the order of the list."""
    from ..verdict import CHECKS

    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    CHECKS.sort(key=lambda check: check.number)
