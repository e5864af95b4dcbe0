# SPDX-License-Identifier: Apache-2.0
"""Random tables and parameters of the linear models against the recurrence:
what no list of cases has together.  SOAK=1 draws more of them."""
import os
import random

import linear_reference as ref
import numpy as np
import pytest
from linear_jobs import Lab, far, make, plus_minus

FAMILIES = {"HeteroLR": (ref.Logistic, "binary"), "HeteroLinR": (ref.Linear, "regression"),
            "HeteroPoisson": (ref.Poisson, "count")}
MANY = 400 if os.environ.get("SOAK") else 20


@pytest.fixture(scope="module")
def lab(sandboxes):
    return Lab(sandboxes("9999", "10000", "10001", "10002"))


def draw(r):
    """(module, sizes of the parties, rows, parameters, weighted)."""
    module = r.choice(list(FAMILIES))
    poisson = module == "HeteroPoisson"
    sizes = (r.randint(0, 4), r.randint(1, 4)) if poisson or r.random() < .6 else \
        (r.randint(0, 4), r.randint(1, 3), r.randint(1, 3))
    rows = r.randint(20, 70)
    init = {"init_method": r.choice(["zeros", "random_uniform", "const", "ones"] +
                                    ([] if poisson else ["random_normal"])),
            "init_const": .3, "random_seed": r.randint(0, 1000),
            "fit_intercept": r.random() < .8}
    how = {"optimizer": r.choice(["sgd", "rmsprop", "adagrad", "adam", "nesterov_momentum_sgd"] +
                                 ([] if poisson else ["sqn"])),
           "penalty": r.choice(["L1", "L2", "None", None]), "alpha": r.choice([0, .001, .1, 1]),
           "learning_rate": r.choice([.01, .05] if poisson else [.01, .1, .3]),
           "decay": r.choice([0, .5, 1, 3]), "decay_sqrt": r.random() < .5,
           "max_iter": r.randint(1, 6), "shuffle": False, "init_param": init,
           "floating_point_precision": r.choice([23, None, 40]), "tol": r.choice([1e-9, .01, .1]),
           "early_stop": "weight_diff" if len(sizes) > 2 else
           r.choice(["diff", "abs", "weight_diff"])}
    if r.random() < .5:
        # The last batch has more rows than a party has columns.
        how["batch_size"] = r.choice([n for n in range(10, rows + 1)
                                      if rows % n == 0 or rows % n > 4])
    if module == "HeteroLR":
        how["masked_rate"] = r.choice([0, .5, 5])
    if how["optimizer"] == "sqn":
        how["max_iter"] += 4
        how["sqn_param"] = {"update_interval_L": r.randint(1, 3), "memory_M": r.randint(1, 4)}
    return module, sizes, rows, how, not poisson and r.random() < .3


def start(init, sizes):
    method, n = init["init_method"], sum(sizes) + 1
    w = {"zeros": lambda: np.zeros(n), "ones": lambda: np.ones(n), "const": lambda: np.full(n, .3),
         "random_uniform": lambda: ref.seeded(init["random_seed"], sizes),
         "random_normal": lambda: ref.seeded(init["random_seed"], sizes, "randn")}[method]()
    w[-1] *= init["fit_intercept"]
    return w


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.numbers] if n >= 6 else [])
                                  for n in range(MANY)])
def test_it_is_the_recurrence(lab, seed):
    module, sizes, rows, how, weighted = draw(random.Random(seed))
    family, kind = FAMILIES[module]
    d = make(1000 + seed, rows=rows, guest=sizes[0], hosts=sizes[1:], kind=kind)
    extra = {}
    if weighted:
        d.extra = {"s": np.round(.1 + 3 * np.random.RandomState(seed).rand(rows), 4)}
        extra["before"] = ("SampleWeight", {"sample_weight_name": "s"})
    offset = 0.
    if kind == "count":
        extra["exposure_colname"] = "days"
        offset = ref.offset_of(d.extra["days"])
    sqn = how.get("sqn_param", {})
    fit = ref.fit(family, d.x, plus_minus(d.y) if kind == "binary" else d.y.astype(float),
                  optimizer=how["optimizer"], rate=how["learning_rate"], alpha=how["alpha"],
                  iterations=how["max_iter"], penalty=how["penalty"], decay=how["decay"],
                  decay_sqrt=how["decay_sqrt"], weights=d.extra.get("s"), offset=offset,
                  batch_size=how.get("batch_size", -1), w0=start(how["init_param"], sizes),
                  early_stop=how["early_stop"], tol=how["tol"],
                  interval=sqn.get("update_interval_L", 3), memory=sqn.get("memory_M", 5),
                  intercept=how["init_param"]["fit_intercept"])
    r = lab.run(module, lab.upload("table%d" % seed, d), **how, **extra,
                label_type="float" if kind == "regression" else "int")
    r.agrees(fit)
    want = ref.score(family, d.x, r.weights(), offset)
    assert far(r.scores(), want) < 1e-9 * max(1, np.abs(want).max())
