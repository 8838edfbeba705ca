"""How many tokens of a context are kept."""

import operator
from dataclasses import dataclass

from attention_coresets.checks import not_negative, one_of

SHORT = ("keep", "refuse")


@dataclass(frozen=True)
class Layout:
    """How many tokens to keep of a context.

    Parameters
    ----------
    size : int or float
        Tokens kept in each KV head in all, or their share of the context, strictly between 0 and 1.
    keep_recent : int
        How many of these are the last tokens of the context, kept as they are. The coreset is of the tokens before
        them.
    short : str
        What becomes of a context too short for that: "keep" all its tokens, or "refuse" it.

    Raises
    ------
    ValueError
        For a size or keep_recent that fits no context.
    """

    size: int | float
    keep_recent: int = 0
    short: str = "refuse"

    def __post_init__(self) -> None:
        one_of("short", self.short, SHORT)
        not_negative(keep_recent=self.keep_recent)
        if isinstance(self.size, float):
            if not 0 < self.size < 1:
                raise ValueError(f"size = {self.size} must be a share between 0 and 1, or a whole number of tokens")
            return
        object.__setattr__(self, "size", operator.index(self.size))
        if self.size < 1:
            raise ValueError(f"size must be at least 1 token, got {self.size}")
        self._leaves_room(self.size)

    def tokens(self, context: int, sinks: int = 0) -> int:
        """Returns the size for this context, of which the construction keeps the `sinks` first tokens anyway.

        Raises ValueError where it does not fit and short contexts are refused.
        """
        size = round(self.size * context) if isinstance(self.size, float) else self.size
        if self.short == "keep":
            return context if size >= context or size <= self.keep_recent + sinks else size
        if size < 1:
            raise ValueError(f"size = {self.size} of {context} tokens keeps none; ask for a larger share")
        if size > context:
            raise ValueError(f"size = {size} is above the {context} tokens of the context; ask for at most {context}")
        self._leaves_room(size)
        return size

    def _leaves_room(self, size: int | float) -> None:
        if self.keep_recent >= size:
            raise ValueError(f"keep_recent = {self.keep_recent} must be below size = {size}; keep fewer recent tokens")
