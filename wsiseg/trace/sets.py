"""Disjoint sets of numbers as an array of parents, for connected components."""

from wsiseg.kernels import kernel

__all__ = ["find_root", "join_roots", "number_roots"]


@kernel
def find_root(parent, i):  # type: ignore[no-untyped-def]  # numba infers the types
    """Return the root of `i`, halving the path."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def join_roots(parent, i, j):  # type: ignore[no-untyped-def]  # numba infers the types
    """Unite the sets of `i` and `j`; the smaller root becomes the root, whatever the call order."""
    if parent[i] == parent[j]:
        return
    i, j = find_root(parent, i), find_root(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


@kernel
def number_roots(parent):  # type: ignore[no-untyped-def]  # numba infers the types
    """Replace each parent by its set's number, in the order of roots; return the count of sets."""
    count = 0
    for i in range(parent.size):
        if parent[i] == i:
            parent[i] = count
            count += 1
        else:  # a root comes before its members, so the parent is numbered already
            parent[i] = parent[parent[i]]
    return count
