"""Student's t without SciPy: survival function, quantile, and the t-to-normal map. Arrays in, arrays out."""

from __future__ import annotations

from math import erfc, lgamma, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
_NORMAL = NormalDist()
_TINY = 1e-300
_log_gamma = np.vectorize(lgamma, otypes=[float])


def normal_sf(z: float) -> float:
    """P(Z > z) for a standard normal Z."""
    return 0.5 * erfc(z / sqrt(2.0))


def t_sf(t: ArrayLike, df: ArrayLike) -> Array:
    """P(T > t) of Student's t with `df` > 0 degrees of freedom (any real number), elementwise."""
    t, df = np.broadcast_arrays(np.asarray(t, float), np.asarray(df, float))
    half = 0.5 * _betainc(0.5 * df, np.full(df.shape, 0.5), df / (df + t * t))
    return np.asarray(np.where(t >= 0, half, 1.0 - half))


def t_to_z(t: ArrayLike, df: ArrayLike) -> Array:
    """The normal deviate with the tail probability of `t`: studentised sums on a common scale.

    Beyond double precision the approximation of Wallace (1959) takes over.
    """
    t, df = np.broadcast_arrays(np.asarray(t, float), np.asarray(df, float))
    tail = t_sf(np.abs(t), df)
    exact = -np.array([_NORMAL.inv_cdf(max(p, _TINY)) for p in tail.ravel()]).reshape(t.shape)
    far = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t * t / df))
    return np.asarray(np.sign(t) * np.where(tail > 1e-290, np.maximum(exact, 0.0), far))


def z_to_t(z: ArrayLike, df: ArrayLike) -> Array:
    """Inverse of `t_to_z`: the t value with the tail probability of a normal deviate.

    Newton's method on the logarithm of the tail, from the inverse of Wallace's formula.
    """
    z, df = np.broadcast_arrays(np.asarray(z, float), np.asarray(df, float))
    size = np.abs(z)
    target = np.log([max(normal_sf(v), _TINY) for v in size.ravel()]).reshape(z.shape)
    start = size * (8 * df + 3) / (8 * df + 1)
    t = np.sqrt(df * np.expm1(np.minimum(start * start / df, 600.0)))
    log_scale = _log_gamma(0.5 * (df + 1)) - _log_gamma(0.5 * df) - 0.5 * np.log(np.pi * df)
    for _ in range(20):
        tail = np.maximum(t_sf(t, df), _TINY)
        density = np.exp(log_scale - 0.5 * (df + 1) * np.log1p(t * t / df))
        step = (np.log(tail) - target) * tail / np.maximum(density, _TINY)
        # In the far tail log P is linear in log t, near the middle in t.
        far = t * np.exp(np.clip(step / np.maximum(t, 1.0), -5.0, 5.0))
        t = np.where(t > 1.0, far, np.maximum(t + step, 0.0))
        if np.all(np.abs(step) <= 1e-12 * (1.0 + t)):
            break
    return np.asarray(np.sign(z) * t)


def t_quantile(p: float, df: ArrayLike) -> Array:
    """The `p` quantile of Student's t with `df` degrees of freedom."""
    return z_to_t(_NORMAL.inv_cdf(p), df)


def _betainc(a: Array, b: Array, x: Array) -> Array:
    """Regularised incomplete beta function by Lentz's continued fraction (DLMF 8.17.22)."""
    swap = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    with np.errstate(divide="ignore"):
        front = np.exp(
            _log_gamma(p + q)
            - _log_gamma(p)
            - _log_gamma(q)
            + p * np.log(np.maximum(y, _TINY))
            + q * np.log1p(-np.minimum(y, 1 - 1e-16))
        )
    c = np.ones_like(y)
    d = _away(1 - (p + q) * y / (p + 1))
    d = 1 / d
    fraction = d
    for m in range(1, 300):
        even = m * (q - m) * y / ((p + 2 * m - 1) * (p + 2 * m))
        d, c = 1 / _away(1 + even * d), _away(1 + even / c)
        fraction = fraction * d * c
        odd = -(p + m) * (p + q + m) * y / ((p + 2 * m) * (p + 2 * m + 1))
        d, c = 1 / _away(1 + odd * d), _away(1 + odd / c)
        step = d * c
        fraction = fraction * step
        if np.all(np.abs(step - 1) < 1e-14):
            break
    value = np.where(y <= 0, 0.0, front * fraction / p)
    return np.asarray(np.where(swap, 1 - value, value))


def _away(v: Array) -> Array:
    return np.where(np.abs(v) < _TINY, _TINY, v)
