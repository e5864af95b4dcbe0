# SPDX-License-Identifier: Apache-2.0
"""The recurrence of docs/components/hetero_lr.md on pooled columns in plain
Python: what a federated run has to agree with."""
import csv
import math


def load(*paths):
    """(ids, rows of columns, labels, names per file) of CSVs joined by id."""
    tables, names = [], []
    label = {}
    for path in paths:
        with open(path, encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        columns = [c for c in rows[0] if c not in ("id", "y")]
        names.append(columns)
        tables.append({r["id"]: [float(r[c]) for c in columns] for r in rows})
        label.update({r["id"]: int(r["y"]) for r in rows if "y" in r})
    ids = sorted(set.intersection(*(set(t) for t in tables)))
    return (ids, [sum((t[i] for t in tables), []) for i in ids],
            [1 if label[i] == 1 else -1 for i in ids], names)


class Optimizer:
    def __init__(self, name, rate, n, decay=1, decay_sqrt=True):
        self.name, self.rate, self.decay, self.decay_sqrt = name, rate, decay, decay_sqrt
        self.m, self.v, self.k = [0.0] * n, [0.0] * n, 0

    def step(self, t, g):
        d = 1 + self.decay * t
        eta = self.rate / (math.sqrt(d) if self.decay_sqrt else d)
        m, v = self.m, self.v
        self.k += 1
        out = []
        for i, x in enumerate(g):
            if self.name == "rmsprop":
                m[i] = .99 * m[i] + .01 * x * x
                out.append(eta * x / math.sqrt(m[i] + 1e-6))
            elif self.name == "adagrad":
                m[i] += x * x
                out.append(eta * x / (math.sqrt(m[i]) + 1e-7))
            elif self.name == "adam":
                m[i] = .9 * m[i] + .1 * x
                v[i] = .999 * v[i] + .001 * x * x
                out.append(eta * (m[i] / (1 - .9 ** self.k)) /
                           (math.sqrt(v[i] / (1 - .999 ** self.k)) + 1e-8))
            elif self.name == "nesterov_momentum_sgd":
                new = .9 * v[i] - eta * x
                out.append(.9 * v[i] - 1.9 * new)
                v[i] = new
            else:
                out.append(eta * x)
        return out


def train(x, y, optimizer, rate, alpha, iterations, penalty="L2"):
    """Full batch from zeros: (weights, intercept last; loss per iteration)."""
    n, cols = len(x), len(x[0])
    w = [0.0] * (cols + 1)
    rule = Optimizer(optimizer, rate, cols + 1)
    history = []
    for t in range(iterations):
        g, loss = [0.0] * (cols + 1), 0.0
        for row, yi in zip(x, y):
            z = w[cols] + sum(a * b for a, b in zip(w, row))
            d = z / 4 - yi / 2
            loss += math.log(2) - yi * z / 2 + z * z / 8
            for j, a in enumerate(row):
                g[j] += d * a
            g[cols] += d
        g = [v / n for v in g]
        loss /= n
        if penalty == "L2":
            loss += alpha / 2 * sum(v * v for v in w[:cols])
            g = [v + alpha * a for v, a in zip(g, w[:cols])] + g[cols:]
        elif penalty == "L1":
            loss += alpha * sum(abs(v) for v in w[:cols])
        history.append(loss)
        w = [a - b for a, b in zip(w, rule.step(t, g))]
        if penalty == "L1":
            shrink = alpha * rate / math.sqrt(t) if t else math.inf
            w[:cols] = [math.copysign(max(0.0, abs(v) - shrink), v) for v in w[:cols]]
    return w, history


def score(x, w):
    return [1 / (1 + math.exp(-(w[-1] + sum(a * b for a, b in zip(w, row))))) for row in x]
