"""What few subcommands need and no daemon does: the extra [cli] of the package."""

import contextlib
from collections.abc import Iterator

from wiresnake.errors import WiresnakeError


@contextlib.contextmanager
def needed_by(what: str) -> Iterator[None]:
    """For the import of a package of the extra: WiresnakeError says how to bring a missing one."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        raise WiresnakeError(f"{what} needs {package}: pip install 'wiresnake[cli]'") from None
