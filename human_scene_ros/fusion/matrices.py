"""Many 3x3 matrices at once, in closed form: a few array operations however many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Of a row-major 3x3, cofactor i is the product of the elements in column i of the table minus that in column i + 9.
_FACTORS = np.array([[4, 5, 3, 7, 8, 6, 1, 2, 0, 5, 3, 4, 8, 6, 7, 2, 0, 1],
                     [8, 6, 7, 2, 0, 1, 5, 3, 4, 7, 8, 6, 1, 2, 0, 4, 5, 3]])


def cofactors(elements: Array) -> tuple[Array, Array]:
    """Matrices in columns, row-major.

    Args:
        elements: (9, N).

    Returns:
        cofactors: (9, N), row-major; transposed and divided by the determinant they are the inverse.
        determinants: (N,).
    """
    factors = elements.take(_FACTORS, axis=0)
    products = factors[0] * factors[1]
    cofactor = products[:9] - products[9:]
    return cofactor, (elements[:3] * cofactor[:3]).sum(axis=0)


def invert_symmetric(matrices: NDArray[np.floating]) -> tuple[Array, NDArray[np.bool_]]:
    """(..., 3, 3) symmetric -> inverses and where they exist (determinant above 0; zeros elsewhere)."""
    M = np.asarray(matrices, np.float64)
    cofactor, determinant = cofactors(M.reshape(-1, 9).T)
    possible = determinant > 0.0
    if np.count_nonzero(possible) < len(possible):
        cofactor, determinant = np.where(possible, cofactor, 0.0), np.where(possible, determinant, 1.0)
    return (cofactor / determinant).T.reshape(M.shape), possible.reshape(M.shape[:-2])


def mahalanobis_squared(offsets: NDArray[np.floating], covariances: NDArray[np.floating]) -> Array:
    """(..., 3) and (..., 3, 3) symmetric -> (...) d^T S^-1 d; infinity where S is not positive."""
    inverse, possible = invert_symmetric(covariances)
    squared = ((inverse @ offsets[..., None])[..., 0] * offsets).sum(axis=-1)
    return squared if np.count_nonzero(possible) == possible.size else np.where(possible, squared, np.inf)
