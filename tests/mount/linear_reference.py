# SPDX-License-Identifier: Apache-2.0
"""The recurrences of the coordinated linear models on pooled columns in numpy:
what a federated run has to agree with.  Written from the formulas of
docs/components/, not from the code."""
import dataclasses
import math

import numpy as np

# ---- families: residual, loss of a row, curvature of its Taylor form -------


class Logistic:
    """y is +1 or -1; the loss is its series at 0."""
    curvature = .25

    @staticmethod
    def residual(z, y, _offset):
        return z / 4 - y / 2

    @staticmethod
    def loss(z, y, _offset):
        return math.log(2) - y * z / 2 + z * z / 8

    @staticmethod
    def predict(z, _offset):
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1, e) / (1 + e)


class Linear:
    curvature = 1.

    @staticmethod
    def residual(z, y, _offset):
        return z - y

    @staticmethod
    def loss(z, y, _offset):
        return (z - y) ** 2 / 2

    @staticmethod
    def predict(z, _offset):
        return z


class Poisson:
    curvature = None

    @staticmethod
    def residual(z, y, offset):
        return np.exp(z + offset) - y

    @staticmethod
    def loss(z, y, offset):
        return np.exp(z + offset) - y * (z + offset)

    @staticmethod
    def predict(z, offset):
        return np.exp(z + offset)


def offset_of(exposure):
    return np.log(np.where(np.asarray(exposure) > 0, exposure, 1e-7))


# ---- optimisers ------------------------------------------------------------


class Optimizer:
    def __init__(self, name, rate, n, decay=1., decay_sqrt=True):
        self.name, self.rate, self.decay, self.decay_sqrt = name, rate, decay, decay_sqrt
        self.m, self.v, self.calls = np.zeros(n), np.zeros(n), 0
        self.inverse = None  # sqn: the estimate of the inverse Hessian

    def step(self, t, g):
        d = 1 + self.decay * t
        eta = self.rate / (math.sqrt(d) if self.decay_sqrt else d)
        self.calls += 1
        if self.name == "sgd":
            return eta * g
        if self.name == "rmsprop":
            self.m = .99 * self.m + .01 * g * g
            return eta * g / np.sqrt(self.m + 1e-6)
        if self.name == "adagrad":
            self.m = self.m + g * g
            return eta * g / (np.sqrt(self.m) + 1e-7)
        if self.name == "adam":
            self.m = .9 * self.m + .1 * g
            self.v = .999 * self.v + .001 * g * g
            return eta * (self.m / (1 - .9 ** self.calls)) / \
                (np.sqrt(self.v / (1 - .999 ** self.calls)) + 1e-8)
        if self.name == "nesterov_momentum_sgd":
            new = .9 * self.v - eta * g
            update = .9 * self.v - 1.9 * new
            self.v = new
            return update
        assert self.name == "sqn", self.name
        return eta * g if self.inverse is None else eta * (self.inverse @ g)


class QuasiNewton:
    """Byrd et al. 2016 on the Taylor form's Hessian of all rows: looks at the
    weights before each batch and every `interval` batches renews the
    estimate."""

    def __init__(self, hessian, interval, memory):
        self.hessian, self.interval, self.memory = hessian, interval, memory
        self.sum, self.before, self.pairs, self.k = 0., None, [], 0

    def look(self, w):
        self.k += 1
        self.sum = self.sum + w

    def renew(self, old):
        """The estimate behind batch k."""
        if self.k % self.interval:
            return old
        mean, self.sum = self.sum / self.interval, 0.
        if self.before is not None:
            s = mean - self.before
            y = self.hessian @ s
            if y @ s > 0:
                self.pairs = (self.pairs + [(s, y)])[-self.memory:]
        self.before = mean
        if not self.pairs:
            return old
        s, y = self.pairs[-1]
        unit = np.eye(len(s))
        h = unit * (y @ s) / (y @ y)
        for s, y in self.pairs:
            v = unit - np.outer(y, s) / (y @ s)
            h = v.T @ h @ v + np.outer(s, s) / (y @ s)
        return h


# ---- training --------------------------------------------------------------


@dataclasses.dataclass
class Fit:
    w: np.ndarray  # the intercept last
    loss: list
    iterations: int
    converged: bool
    trail: list  # the weights after each epoch


def seeded(seed, sizes, method="rand"):
    """Start values: every party draws its own (guest first, whose last number
    is the intercept) from the same seed; in the pooled order."""
    parts = [getattr(np.random.RandomState(seed), method)(n + (i == 0))
             for i, n in enumerate(sizes)]
    return np.concatenate([parts[0][:-1]] + parts[1:] + [parts[0][-1:]])


def fit(family, x, y, optimizer="sgd", rate=.15, alpha=.01, iterations=5, penalty="L2",
        decay=1., decay_sqrt=True, weights=None, offset=0., batch_size=-1, w0=None, first=0,
        early_stop=None, tol=0., interval=3, memory=5, intercept=True):
    """Rows in the order of their keys, batches one after the other; epochs
    first .. iterations - 1 (a warm start counts those of its model)."""
    n, cols = x.shape
    x = np.hstack([x, np.full((n, 1), float(intercept))])
    s = np.ones(n) if weights is None else np.asarray(weights, float)
    s = s * n / s.sum()
    offset = np.broadcast_to(np.asarray(offset, float), n)
    w = np.zeros(cols + 1) if w0 is None else np.array(w0, float)
    size = n if batch_size < 0 else min(batch_size, n)
    ridge = np.full(cols + 1, alpha if penalty == "L2" else 0.)
    ridge[cols] = 0
    rule = Optimizer(optimizer, rate, cols + 1, decay, decay_sqrt)
    newton = None
    if optimizer == "sqn":
        newton = QuasiNewton(family.curvature * (x.T * s) @ x / n + np.diag(ridge), interval,
                             memory)
    result = Fit(w, [], 0, False, [])
    for t in range(first, iterations):
        losses, total = [], 0.
        for at in range(0, n, size):
            b = slice(at, min(at + size, n))
            z = x[b] @ w
            losses.append((s[b] * family.loss(z, y[b], offset[b])).mean() +
                          _penalty(w[:cols], penalty, alpha))
            g = x[b].T @ (s[b] * family.residual(z, y[b], offset[b])) / len(z) + ridge * w
            if newton:
                newton.look(w)
            update = rule.step(t, g)
            total = total + update
            w = w - update
            if penalty == "L1" and alpha:
                shrink = alpha * rate / math.sqrt(t) if t else math.inf
                w[:cols] = np.sign(w[:cols]) * np.maximum(0, np.abs(w[:cols]) - shrink)
            if newton:
                rule.inverse = newton.renew(rule.inverse)
        result.loss.append(float(np.mean(losses)))
        result.trail.append(w.copy())
        result.iterations = t + 1
        if early_stop == "diff":
            result.converged = len(result.loss) > 1 and abs(result.loss[-2] - result.loss[-1]) < tol
        elif early_stop == "abs":
            result.converged = result.loss[-1] <= tol
        elif early_stop == "weight_diff":
            result.converged = bool(np.linalg.norm(total) < tol)
        if result.converged:
            break
    result.w = w
    return result


def _penalty(w, kind, alpha):
    if kind == "L2":
        return alpha / 2 * (w @ w)
    return alpha * np.abs(w).sum() if kind == "L1" else 0.


def score(family, x, w, offset=0.):
    return family.predict(x @ w[:-1] + w[-1], offset)


def one_vs_rest(x, labels, **how):
    """{class: Fit}, ascending."""
    labels = np.asarray(labels)
    return {k: fit(Logistic, x, np.where(labels == k, 1., -1.), **how)
            for k in sorted(set(labels.tolist()))}


# ---- metrics ---------------------------------------------------------------


def auc(y, p):
    """Pairs of a positive and another row in the right order; ties are half."""
    y, p = np.asarray(y) == 1, np.asarray(p)
    gap = p[y][:, None] - p[~y][None, :]
    return float(((gap > 0) + .5 * (gap == 0)).mean())


def ks(y, p):
    """At the 100 scores at places n c / 100 of the sorted list."""
    y, p = np.asarray(y) == 1, np.asarray(p)
    top = np.sort(p)[::-1]
    at = top[[len(p) * c // 100 for c in range(100)]]
    return float(max(0., max((p[y] > t).mean() - (p[~y] > t).mean() for t in at)))


def rmse(y, p):
    return float(np.sqrt(np.mean((np.asarray(y) - p) ** 2)))


def mae(y, p):
    return float(np.mean(np.abs(np.asarray(y) - p)))


def r2(y, p):
    y = np.asarray(y)
    return float(1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def best_epoch(curves, rounds, larger):
    """(epoch whose model is kept, last epoch) of curves, a list of lists with
    the metrics' values in their order; larger says which grow."""
    best = [(-1, None)] * len(curves)
    for t in range(len(curves[0])):
        for i, c in enumerate(curves):
            better = best[i][1] is None or (c[t] > best[i][1] if larger[i] else c[t] < best[i][1])
            if better:
                best[i] = (t, c[t])
            elif t - best[i][0] >= rounds:
                return best[i][0], t
    return None, len(curves[0]) - 1


# ---- folds and stepwise ----------------------------------------------------


def folds(n, k, shuffle, seed):
    """(train rows, test rows) of each fold, ascending."""
    order = np.arange(n)
    if shuffle:
        np.random.RandomState(seed).shuffle(order)
    sizes = [n // k + (i < n % k) for i in range(k)]
    at = 0
    for size in sizes:
        test = np.sort(order[at:at + size])
        at += size
        yield np.setdiff1d(np.arange(n), test), test


def criterion(family, name, n, columns, loss):
    k = 2 if name == "AIC" else math.log(n)
    fitted = n * math.log(2 * loss) if family is Linear else 2 * n * loss
    return k * (columns + 1) + fitted


def stepwise(family, x, y, direction, name, max_step=10, nvmin=2, nvmax=None, start=None, **how):
    """The columns that a search over all columns ends with."""
    n, cols = x.shape
    seen = {}

    def ic(mask):
        if mask not in seen:
            at = [j for j in range(cols) if mask[j]]
            f = fit(family, x[:, at], y, **how)
            seen[mask] = criterion(family, name, n, len(at), f.loss[-1])
        return seen[mask]

    all_in = direction != "forward" if start is None else start
    mask = (all_in,) * cols
    for _ in range(max_step):
        flips = [j for j in range(cols)
                 if (direction != "forward" if mask[j] else direction != "backward")]
        near = [mask[:j] + (not mask[j],) + mask[j + 1:] for j in flips]
        near = [m for m in near if sum(m) >= (nvmin if sum(m) < sum(mask) else 0) and
                (nvmax is None or sum(m) <= nvmax or sum(m) < sum(mask))]
        best = min([mask] + near, key=ic)
        if best == mask:
            break
        mask = best
    return [j for j in range(cols) if mask[j]]
