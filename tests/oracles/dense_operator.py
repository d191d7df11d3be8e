"""Sparse coding by loops over patches and dense algebra: shares no code with the solvers."""

import numpy as np

from sparseguard.sparse import DenseDictionary


def dense(dictionary):
    """Return the synthesis as a matrix (pixels, coefficients), each column an atom put at its place pixel by pixel."""
    if isinstance(dictionary, DenseDictionary):
        return dictionary.atoms.numpy().T
    atoms, stride, (h, w) = dictionary.atoms.numpy(), dictionary.stride, dictionary.size
    f, c, kh, kw = atoms.shape
    if dictionary.padding == "same":
        top, left, p, q = -(kh // 2), -(kw // 2), -(-h // stride), -(-w // stride)
    else:
        top, left, p, q = 0, 0, (h - kh) // stride + 1, (w - kw) // stride + 1
    columns = np.zeros((f, p, q, c, h, w))
    for a, y, x, i, j in np.ndindex(f, p, q, kh, kw):
        row, column = top + y * stride + i, left + x * stride + j
        if 0 <= row < h and 0 <= column < w:
            columns[a, y, x, :, row, column] += atoms[a, :, i, j]
    return columns.reshape(f * p * q, c * h * w).T


def lambdas(problem):
    """Return lambda for every coefficient, in the order of the dense operator's columns."""
    features, *positions = problem.dictionary.code_shape
    one_each = np.broadcast_to(np.asarray(problem.lambd, dtype=float), features)
    return np.repeat(one_each, int(np.prod(positions)))


def slow_kkt(problem, code):
    """Return, coefficient by coefficient, how far one proximal gradient step moves the code; the largest an image."""
    matrix, weights = dense(problem.dictionary), lambdas(problem)
    worst = []
    for image, row in zip(problem.images.flatten(1).numpy(), code.flatten(1).numpy(), strict=True):
        slope = matrix.T @ (matrix @ row - image)
        moves = [0.0]
        for value, downhill, lam in zip(row, row - slope, weights, strict=True):
            if problem.penalty == "l1":
                goal = max(abs(downhill) - lam, 0.0) * (1 if downhill > 0 else -1)
            else:
                goal = downhill if abs(downhill) > lam else 0.0
            if problem.nonnegative and downhill < 0:
                goal = 0.0
            moves.append(abs(value - goal))
        worst.append(max(moves))
    return worst
