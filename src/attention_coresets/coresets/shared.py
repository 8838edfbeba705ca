"""Keeps what coresets of one cache have in common, so that several sizes find it once."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Shared:
    """What a construction has found of one cache, rho and set of queries, for the other sizes that are asked of it.

    Tokens are those that it keeps without. `saved` adds up the seconds that would have been spent again: what a coreset
    takes alone is what it took, and by how much `saved` grew.
    """

    def __init__(self) -> None:
        self.saved = 0.0
        self._of: tuple[Any, ...] | None = None
        self._found: dict[str, tuple[Any, float]] = {}

    def check(self, *of: Any) -> None:
        """Raises ValueError unless this is asked of the same objects each time."""
        if self._of is None:
            self._of = of
        if not all(one is new or (type(one) is float and one == new) for one, new in zip(self._of, of, strict=True)):
            raise ValueError("shared is of another construction, cache, rho or queries; make a new Shared() for each")

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns make() of the first call with this name."""
        if name in self._found:
            found, seconds = self._found[name]
            self.saved += seconds
            return found
        start = time.perf_counter()
        found = make()
        self._found[name] = found, time.perf_counter() - start
        return found
