"""The cells of a sweep that are left, as one of the processes that work on it sees them."""

from collections import Counter, defaultdict, deque
from collections.abc import Container

from attention_coresets.study.leases import Leases
from attention_coresets.study.plan import Sweep
from attention_coresets.study.progress import Board

_BATCH_SECONDS, _BATCH_CELLS = 1.0, 64


class Queue:
    """Hands out cells, longest first, or text by text.

    Cells are grouped by what decides their time. A group of which nothing is known is tried first; then the groups come
    in the order of what their cells have taken, so that no long cell is begun when all others are done. Cells for which
    a model reads a text come in the order of the plan: those of the text that this process has read, then of texts that
    no other process has, then the others.
    """

    def __init__(self, sweep: Sweep, leases: Leases) -> None:
        self.jobs = sweep.jobs()
        self.board = Board(sweep.board)
        self._leases = leases
        self._finished = sweep.store.finished(self.jobs.names)
        self._left: dict[str, deque[int]] = defaultdict(deque)
        for job in self.jobs:
            self._left[self.jobs.groups[job]].append(job)
        self._before = sweep.seconds
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._computed: Counter[str] = Counter()
        self._text = ""  # that this process has read
        self._look()

    @property
    def empty(self) -> bool:
        """Whether every cell is finished or has failed."""
        return not any(self._left.values())

    def expected(self, job: int) -> float | None:
        """Seconds that the cell will take, by those of its group; None where none is known."""
        return self._mean(self.jobs.groups[job])

    def take(self) -> list[int]:
        """Cells for about a second, now this process's own; none if all that are left are in others' hands."""
        held = self._leases.look()
        self._look()
        taken: list[int] = []
        left = _BATCH_SECONDS
        for job in self._offered(held):
            each = self.expected(job)
            if taken and (each is None or each > left or len(taken) == _BATCH_CELLS):
                break
            name = self.jobs.names[job]
            if name not in held and not self._ended(job) and self._leases.take(name):
                taken.append(job)
                left -= _BATCH_SECONDS if each is None else each
        self._look()  # others may have finished some of them between the first look and the taking
        over = [job for job in taken if self._ended(job)]
        self._leases.give_back(self.jobs.names[job] for job in over)
        taken = [job for job in taken if job not in over]
        self._text = self.jobs.texts[taken[-1]] if taken else self._text
        return taken

    def _offered(self, held: Container[str]) -> list[int]:
        """All cells that are left, in the order in which to take them."""
        offered = [job for group in self._order() for job in self._left[group]]
        texts = self.jobs.texts
        if not any(texts[job] for job in offered):
            return offered
        others = {texts[job] for job in offered if self.jobs.names[job] in held}
        return sorted(offered, key=lambda job: (texts[job] != self._text, texts[job] in others, job))

    def _look(self) -> None:
        for post in self.board.look():
            if post.state == "computed":
                self._seconds[self.jobs.groups[post.job]] += post.seconds
                self._computed[self.jobs.groups[post.job]] += 1
        # a living process of this sweep posts what it has finished before it gives the cell back
        self._finished.refresh(except_of=self.board.workers & self._leases.living)
        for left in self._left.values():
            while left and self._ended(left[0]):
                left.popleft()

    def _ended(self, job: int) -> bool:
        board = self.board
        return job in board.computed or job in board.failed or self.jobs.names[job] in self._finished

    def _mean(self, group: str) -> float | None:
        if self._computed[group]:
            return self._seconds[group] / self._computed[group]
        return self._before.get(group)

    def _order(self) -> list[str]:
        """Unknown groups first, of which fewest cells were begun; then the slowest."""
        means = {group: self._mean(group) for group, left in self._left.items() if left}
        unknown = [group for group, mean in means.items() if mean is None]
        if len(unknown) > 1:
            begun = Counter(self.jobs.groups[job] for job in self.board.begun)
            unknown.sort(key=lambda group: begun[group])
        return unknown + sorted(means.keys() - set(unknown), key=lambda group: (-(means[group] or 0.0), group))
