"""The Gram-Schmidt walk of one head on the CPU: compiled steps between matrix products, in the Gram matrix's memory."""

from torch import Tensor

from attention_coresets.coresets.walks.spd_inverse import invert_regular_
from attention_coresets.coresets.walks.walk_compiled import add_rows, compact, steps

_COMPACT = 0.8  # frozen columns are dropped once fewer than this share of the columns is alive
_TILE = 128  # rows of the lower triangle in one product of a downdate


def blocked_walk(
    gram: Tensor,
    x: Tensor,
    uniforms: Tensor,
    place: Tensor,
    ridge: float | None,
    exact: bool,
    block: int,
    freeze: float,
) -> Tensor:
    """Returns which of the n tokens of one head are kept, ``[n]``; arguments as in `walk_signs`.

    ridge None: `gram` is the inverse already.
    """
    token = (x.abs() < 1 - freeze).nonzero().squeeze(-1)
    result, left = x.sign(), len(token)
    # a copy where gram is not contiguous; else the walk works in the caller's memory
    inverse = _Triangle(gram.contiguous())
    inverse.keep(token)
    if ridge is not None:
        invert_regular_(inverse.matrix, ridge)
    rows = x.new_zeros(6, left)  # x, alive, row sums, the pivot's column, pivot place, sign once frozen
    rows[0], rows[1], rows[2], rows[4] = x[token], 1, inverse.row_sums(), place[token]
    pending, used, pivot, done = x.new_empty(block, left), 0, -1, 0
    while left:
        # steps cost the width of the matrix: it is worth moving once a fifth of the columns is frozen
        if left < _COMPACT * len(token):
            keep = rows[1].nonzero().squeeze(-1)
            inverse.keep(keep)
            rows, pending = rows.index_select(1, keep), pending.index_select(1, keep)
            token, pivot = token[keep], -1
        inverse.downdate(pending[:used])
        # steps need not stop early to move a matrix this small
        floor = _COMPACT * len(token) if len(token) > 2 * block else 1.0
        arrays = (y.numpy() for y in (inverse.matrix, pending, *rows, uniforms))
        used, pivot, done, left = steps(*arrays, pivot, done, left, exact, floor, freeze)
        if left and done == len(uniforms):
            raise RuntimeError(f"{left} tokens are still fractional after {done} steps; the Gram matrix may hold NaN")
        frozen = rows[1] == 0
        result[token[frozen]] = rows[5, frozen]
    return result > 0


class _Triangle:
    """A symmetric matrix in the lower triangle of `matrix`, shrunk in place; above the diagonal nothing has meaning."""

    def __init__(self, matrix: Tensor) -> None:
        self.flat, self.matrix = matrix.view(-1), matrix

    def keep(self, columns: Tensor) -> None:
        """Keeps these rows and columns alone (ascending)."""
        width = len(columns)
        if width < len(self.matrix):
            compact(self.flat.numpy(), len(self.matrix), columns.numpy(), width)
            self.matrix = self.flat[: width * width].view(width, width)

    def row_sums(self) -> Tensor:
        sums = self.flat.new_zeros(len(self.matrix))
        add_rows(self.matrix.numpy(), sums.numpy())
        return sums

    def downdate(self, pending: Tensor) -> None:
        """Subtracts the sum of w w^T over the rows w of `pending`."""
        # in tiles, for what lies above the diagonal need not be computed
        for low in range(0, len(self.matrix) if len(pending) else 0, _TILE):
            high = low + _TILE
            self.matrix[low:high, :high].addmm_(pending[:, low:high].mT, pending[:, :high], alpha=-1)
