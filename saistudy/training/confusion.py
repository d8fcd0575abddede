"""Scores of a frame classifier from its confusion counts. Pure: arrays in, arrays out."""

import numpy as np


def counts(labels: np.ndarray, predicted: np.ndarray, classes_n: int) -> np.ndarray:
    """How often each class was called each class, int64 (N, C, C): sequence, truth, prediction.

    Args:
        labels, predicted: class of each frame, integers (N, T).
    """
    cells = labels * classes_n + predicted + np.arange(len(labels))[:, None] * classes_n**2
    found = np.bincount(cells.ravel(), minlength=len(labels) * classes_n**2)
    return found.reshape(len(labels), classes_n, classes_n)


def f1_macro(confusion: np.ndarray) -> np.ndarray:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), of counts (..., C, C); 0 for a class nobody names.

    The seed's metric (L324); scikit-learn's f1_score(average="macro", zero_division=0).
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    named = confusion.sum(-1) + confusion.sum(-2)
    return np.divide(2 * hits, named, out=np.zeros_like(hits), where=named > 0).mean(-1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of frames called by their class, of counts (..., C, C)."""
    confusion = np.asarray(confusion, dtype=np.float64)
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))
