"""The extra [cli] of the package: libraries that a few subcommands need."""

import contextlib
from collections.abc import Iterator

from wiresnake.errors import WiresnakeError


@contextlib.contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Turns a failed import of an extra package into a WiresnakeError that says how to install
    it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        raise WiresnakeError(f"{what} needs {package}: pip install 'wiresnake[cli]'") from None
