# SPDX-License-Identifier: Apache-2.0
"""Small tables for the linear family and jobs on them: what is uploaded is
known here as numbers too, and what a job made is read back in pooled order."""
import csv
import io
import json
import os

import linear_reference as ref
import numpy as np
from conftest import DATA, read

GUEST, ARBITER = "9999", "10001"
HOSTS = ("10000", "10002")
# Everything that tests do not vary; sgd with plain steps.
USUAL = {"penalty": "L2", "alpha": .01, "tol": 1e-9, "optimizer": "sgd", "learning_rate": .15,
         "batch_size": -1, "early_stop": "weight_diff", "max_iter": 3,
         "init_param": {"init_method": "zeros"}, "encrypt_param": {"key_length": 1024}}


class Data:
    """Rows in byte order of their ids; columns of the guest, then the hosts."""

    def __init__(self, ids, x, y, names, label="y", extra=None):
        order = sorted(range(len(ids)), key=lambda i: ids[i].encode())
        self.ids = [ids[i] for i in order]
        self.x, self.y = np.asarray(x)[order], np.asarray(y)[order]
        self.names, self.label = names, label
        # Columns that are at the guest but no features: {name: values}.
        self.extra = {k: np.asarray(v)[order] for k, v in (extra or {}).items()}

    def part(self, rows, y=None):
        rows = np.asarray(rows)
        return Data([self.ids[i] for i in rows], self.x[rows],
                    self.y[rows] if y is None else y, self.names, self.label,
                    {k: v[rows] for k, v in self.extra.items()})

    def columns(self, party):
        at = sum(len(n) for n in self.names[:party])
        return list(range(at, at + len(self.names[party])))

    def csv(self, party, rng=None):
        """The table of the guest (0) or a host (1 ...); with rng, rows and
        columns in another order."""
        columns = [(n, ["%.12g" % v for v in self.x[:, j]])
                   for n, j in zip(self.names[party], self.columns(party))]
        if party == 0:
            columns.insert(0, (self.label, [_number(v) for v in self.y]))
            columns += [(n, [_number(v) for v in values]) for n, values in self.extra.items()]
        rows = list(range(len(self.ids)))
        if rng:
            rng.shuffle(columns)
            rng.shuffle(rows)
        lines = [",".join(["id"] + [n for n, _ in columns])]
        lines += [",".join([self.ids[i]] + [v[i] for _, v in columns]) for i in rows]
        return "\n".join(lines) + "\n"


    def svmlight(self, party):
        """The same without a header: `id label column:value ...`, no zeros."""
        lines = []
        for i, key in enumerate(self.ids):
            cells = ["%d:%.4f" % (k, self.x[i, j])
                     for k, j in enumerate(self.columns(party)) if self.x[i, j]]
            lines.append(" ".join([key] + [_number(self.y[i])] * (party == 0) + cells))
        return "\n".join(lines) + "\n"


def _number(v):
    return "%d" % v if float(v).is_integer() else "%.17g" % v


def make(seed, rows=60, guest=3, hosts=(4,), kind="binary", noise=.7):
    r = np.random.RandomState(seed)
    names = [["x%d" % i for i in range(guest)]]
    names += [["h%d_%d" % (k, i) for i in range(n)] for k, n in enumerate(hosts)]
    cols = guest + sum(hosts)
    x = np.round(r.randn(rows, cols), 4)
    z = x @ (r.choice([-1, 1], cols) * (.3 + r.rand(cols))) + noise * r.randn(rows)
    extra = None
    if kind == "binary":
        y = (z > .25).astype(int)  # more of one class: no gradient is 0
    elif kind == "three":
        y = np.digitize(z, np.quantile(z, [.35, .7])) * 2 + 1  # 1, 3, 5
    elif kind == "regression":
        y = np.round(z, 4)
    else:
        # Visits to a doctor: counts that grow with the time of observation.
        x = np.round(x / 3, 4)
        days = np.round(r.uniform(.5, 2, rows), 4)
        y = r.poisson(days * np.exp(z / 4))
        extra = {"days": days}
    # Numbers without leading zeros: their byte order is not their order.
    return Data([str(i) for i in range(rows)], x, y, names, extra=extra)


def motor(hosts=1):
    """The motor data; with two hosts u_q and what follows lies at the second."""
    tables = []
    for name in ("guest", "host"):
        rows = list(csv.reader(io.StringIO(read(DATA, "motor_%s.csv" % name))))
        tables.append((rows[0][1:], {r[0]: [float(v) for v in r[1:]] for r in rows[1:]}))
    (gn, g), (hn, h) = tables
    ids = list(g)
    names = [gn[1:], hn] if hosts == 1 else [gn[1:], hn[:3], hn[3:]]
    return Data(ids, [g[i][1:] + h[i] for i in ids], [g[i][0] for i in ids], names, gn[0])


class Lab:
    """Guest, two hosts, an arbiter, and tables that are in both."""

    def __init__(self, sandbox):
        self.s, self.guest = sandbox, sandbox[GUEST]
        self.data = {}

    def upload(self, name, data, rng=None):
        """Gives the name back."""
        self.guest.upload("linear", name, data.csv(0, rng))
        for k in range(1, len(data.names)):
            self.s[HOSTS[k - 1]].upload("linear", name, data.csv(k, rng))
        self.data[name] = data
        return name

    def upload_svmlight(self, name, data):
        for k, party in enumerate((GUEST,) + HOSTS[:len(data.names) - 1]):
            meta = {"input_format": "sparse", "delimiter": " ", "with_label": k == 0}
            p = self.s[party]
            os.makedirs(p.path("tables/linear", name), exist_ok=True)
            with open(p.path("tables/linear", name, "upload.json"), "w", encoding="utf-8") as f:
                json.dump({"head": 0, "id_delimiter": " ", "meta": meta}, f)
            p.upload("linear", name, data.svmlight(k))
        self.data[name] = data
        return name

    def job(self, module, name, label_type="int", validate=None, transform=None, before=None,
            evaluation=None, common=None, **params):
        """(dsl, conf) of a training on a table; before: (module, its
        parameters at the guest) of a component in front of it."""
        data = self.data[name]
        hosts = len(data.names) - 1
        chain = [("", "reader_0", "data_transform_0", "intersection_0", name)]
        if validate:
            chain.append(("v", "reader_1", "data_transform_1", "intersection_1", validate))
        dsl, guest, host = {}, {}, {}
        for kind, reader, prep, psi, table in chain:
            dsl[reader] = {"module": "Reader", "output": {"data": ["data"]}}
            dsl[prep] = {"module": "DataTransform", "input": {"data": {"data": [reader + ".data"]}},
                         "output": {"data": ["data"], "model": ["model"]}}
            if kind:
                dsl[prep]["input"]["model"] = ["data_transform_0.model"]
            dsl[psi] = {"module": "Intersection", "input": {"data": {"data": [prep + ".data"]}},
                        "output": {"data": ["data"]}}
            guest[reader] = host[reader] = {"table": {"namespace": "linear", "name": table}}
            guest[prep] = dict(transform or {}, with_label=True, label_name=data.label,
                               label_type=label_type)
            host[prep] = dict(transform or {}, with_label=False)
        source = "intersection_0.data"
        if before:
            dsl["before_0"] = {"module": before[0], "input": {"data": {"data": [source]}},
                               "output": {"data": ["data"], "model": ["model"]}}
            guest["before_0"] = before[1]
            source = "before_0.data"
        dsl["linear_0"] = {"module": module, "input": {"data": {"train_data": [source]}},
                           "output": {"data": ["data"], "model": ["model"]}}
        if validate:
            dsl["linear_0"]["input"]["data"]["validate_data"] = ["intersection_1.data"]
        conf = {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
                "role": {"guest": [9999], "host": [int(h) for h in HOSTS[:hosts]],
                         "arbiter": [int(ARBITER)]},
                "job_parameters": {"common": dict({"task_cores": 2}, **(common or {}))},
                "component_parameters": {
                    "common": {"linear_0": dict(USUAL, **params)},
                    "role": {"guest": {"0": guest}, "host": {"all": host}}}}
        for _, _, _, psi, _ in chain:
            conf["component_parameters"]["common"][psi] = {"intersect_method": "ecdh"}
        if evaluation:
            dsl["evaluation_0"] = {"module": "Evaluation",
                                   "input": {"data": {"data": ["linear_0.data"]}},
                                   "output": {"data": ["data"]}}
            conf["component_parameters"]["common"]["evaluation_0"] = evaluation
        return {"components": dsl}, conf

    def run(self, module, name, seconds=60, **how):
        return self.submit(*self.job(module, name, **how), name=name, seconds=seconds)

    def submit(self, dsl, conf, name, seconds=60):
        return Result(self, self.guest.run(dsl, conf, seconds), self.data[name])

    def submit_result(self, number, name):
        return Result(self, number, self.data[name])

    # ---- the life of a model ----

    def model_of(self, result):
        """{"model_id", "model_version"} of a training."""
        hosts = sorted(HOSTS[:len(result.data.names) - 1], key=int)
        return {"model_id": "arbiter-%s#guest-%s#host-%s#model" % (ARBITER, GUEST, "_".join(hosts)),
                "model_version": result.number}

    def deploy(self, result, components="data_transform_0 intersection_0 linear_0"):
        """The same of the deployed version."""
        model = self.model_of(result)
        at = self.guest.path("models", model["model_id"], model["model_version"])
        with open(os.path.join(at, "ctl"), "w", encoding="utf-8") as f:
            f.write("deploy %s\n" % components)
        version = os.path.basename(os.readlink(os.path.join(at, "deployed")))
        return dict(model, model_version=version, hosts=len(result.data.names) - 1)

    def predict_text(self, model, name, hosts=1):
        """The conf of a predict job on a table that both sides have."""
        model = dict(model)
        hosts = model.pop("hosts", hosts)
        table = {"reader_0": {"table": {"namespace": "linear", "name": name}}}
        return json.dumps({
            "dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999], "host": [int(h) for h in HOSTS[:hosts]],
                     "arbiter": [int(ARBITER)]},
            "job_parameters": {"common": dict(model, job_type="predict")},
            "component_parameters": {"role": {"guest": {"0": table}, "host": {"all": table}}}})

    def predict(self, model, name, seconds=60):
        number = self.guest.submit_text(self.predict_text(model, name))
        status = self.guest.wait(number, seconds)
        assert status == "success", "%s: %s" % (status, self.guest.error(number))
        return Result(self, number, self.data[name])


class Result:
    def __init__(self, lab, number, data):
        self.lab, self.number, self.data = lab, number, data

    def file(self, path, party=GUEST):
        return self.lab.s[party].read("jobs", self.number, path)

    def json(self, path, party=GUEST):
        return self.lab.s[party].read_json("jobs", self.number, path)

    def summary(self, party=GUEST, component="linear_0"):
        role = "guest" if party == GUEST else "host"
        return self.json("%s/%s/summary.json" % (role, component), party)

    def parts(self, component="linear_0"):
        """The summaries of the guest and the hosts."""
        return [self.summary(p, component)
                for p in (GUEST,) + HOSTS[:len(self.data.names) - 1]]

    def weights(self, component="linear_0", of=lambda s: s):
        """In the order of the pooled columns, the intercept last."""
        parts = [of(s) for s in self.parts(component)]
        w = []
        for names, s in zip(self.data.names, parts):
            assert sorted(s["coef"]) == sorted(names)
            w += [s["coef"][n] for n in names]
        return np.array(w + [parts[0]["intercept"]])

    def rows(self, component="linear_0", output="data"):
        """The predictions: {id: row}."""
        text = self.file("guest/%s/out/%s/data.csv" % (component, output))
        rows = list(csv.DictReader(io.StringIO(text)))
        assert list(rows[0])[1:] == ["label", "predict_result", "predict_score",
                                     "predict_detail", "type"]
        out = {r["id"]: r for r in rows}
        assert len(out) == len(rows)
        return out

    def scores(self, **where):
        """The scores of the data's rows in their order."""
        rows = self.rows(**where)
        assert set(rows) == set(self.data.ids)
        return np.array([float(rows[i]["predict_score"]) for i in self.data.ids])

    def metric(self, namespace, name, component="linear_0", role="guest", party=GUEST):
        """[(x, y)] of a curve."""
        lines = self.file("%s/%s/metrics/%s/%s.tsv" % (role, component, namespace, name), party)
        return [tuple(float(v) for v in x.split("\t")) for x in lines.splitlines()]

    def agrees(self, fit, component="linear_0", of=lambda s: s, tolerance=1e-6):
        """Weights and losses are those of a recurrence."""
        have = self.weights(component, of)
        assert far(have, fit.w) < tolerance, "%s\n%s" % (have, fit.w)
        g = of(self.summary(component=component))
        assert g["iterations"] == fit.iterations and g["is_converged"] == fit.converged
        if len(self.data.names) == 2:
            assert far(g["loss_history"], fit.loss) < tolerance


def far(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def plus_minus(y):
    return np.where(np.asarray(y) == 1, 1., -1.)


def like(family, data, y=None, **how):
    """The recurrence under USUAL, but for what is given."""
    usual = {"optimizer": "sgd", "rate": .15, "alpha": .01, "iterations": 3,
             "early_stop": "weight_diff", "tol": 1e-9}
    usual.update(how)
    if y is None:
        y = plus_minus(data.y) if family is ref.Logistic else data.y.astype(float)
    return ref.fit(family, data.x, y, **usual)
