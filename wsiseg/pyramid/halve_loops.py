"""The compiled loops of halving."""

from wsiseg.kernels import kernel

__all__ = ["mean", "vote"]


@kernel
def vote(upper, lower, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The label of each square."""
    for y in range(out.shape[0]):
        top, bottom, line = upper[y], lower[y], out[y]
        for x in range(len(line)):
            a, b, c, d = top[2 * x], top[2 * x + 1], bottom[2 * x], bottom[2 * x + 1]
            # Sorted without a branch, so that the compiler does many squares at a time; the first
            # two that are equal then have it, and if none are, the smallest.
            a, b = (a if a < b else b), (b if a < b else a)
            c, d = (c if c < d else d), (d if c < d else c)
            a, c = (a if a < c else c), (c if a < c else a)
            b, d = (b if b < d else d), (d if b < d else b)
            b, c = (b if b < c else c), (c if b < c else b)
            best = c if c == d else a
            best = b if b == c else best
            line[x] = a if a == b else best


@kernel
def mean(upper, lower, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The mean of each square."""
    for y in range(out.shape[0]):
        top, bottom, line = upper[y], lower[y], out[y]
        for x in range(len(line)):
            total = top[2 * x] + top[2 * x + 1] + bottom[2 * x] + bottom[2 * x + 1]
            line[x] = (total + 2) >> 2
