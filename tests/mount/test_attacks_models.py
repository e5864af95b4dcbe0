# SPDX-License-Identifier: Apache-2.0
"""Partners, models and numbers that mean harm to trainers and the model
store."""
import json
import os

import pytest
from conftest import Refused, job_files
from test_jobs import breast, quick_keys


def allow(p, partner, text):
    with open(p.path("parties", str(partner), "allow"), "w", encoding="ascii") as f:
        f.write(text)


# ---- whose tables a partner reads -------------------------------------------


READING = {"components": {
    "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
    "data_transform_0": {"module": "DataTransform", "input": {"data": {"data": ["reader_0.data"]}},
                         "output": {"data": ["data"], "model": ["model"]}}}}


def reading(common, *sections):
    """A conf whose host's table is put together from several places."""
    role = {"guest": {"0": {"reader_0": {"table": {"namespace": "experiment",
                                                   "name": "breast_guest"}}}},
            "host": {k: {"reader_0": {"table": t}} for k, t in sections}}
    return {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999], "host": [10000]},
            "component_parameters": {"common": {"reader_0": {"table": common}} if common else {},
                                     "role": role}}


SECRET = {"namespace": "private", "name": "salaries"}
OPEN = {"namespace": "experiment", "name": "breast_host"}


@pytest.mark.parametrize("common, sections", [
    (None, [("0", SECRET)]),
    (SECRET, []),
    ({"namespace": "private"}, [("0", {"name": "salaries"})]),
    ({"name": "salaries"}, [("all", {"namespace": "private"})]),
    (None, [("all", {"namespace": "private"}), ("0", {"name": "salaries"})]),
    (SECRET, [("0", {})]),
    (OPEN, [("0", SECRET)]),
    (OPEN, [("all", SECRET), ("0", {})]),
    (OPEN, [("0", SECRET), ("all", {"namespace": "private"})])])
def test_a_table_that_is_not_allowed_is_not_read_in_pieces(three, common, sections):
    host = three[10000]
    host.upload("private", "salaries", "id,x\n1,2\n2,3\n")
    old = host.read("parties/9999/allow")
    allow(host, 9999, "role host\nmodule *\ntable experiment/*\n")
    try:
        with pytest.raises(Refused) as e:
            three[9999].submit(READING, reading(common, *sections))
        assert "no such table, or does not allow it" in e.value.text
        # The same pieces of a table that is allowed are.
        job = three[9999].run(READING, reading({"namespace": "experiment"},
                                               ("0", {"name": "breast_host"})))
        assert os.path.exists(host.path("jobs", job, "host/data_transform_0/out/data"))
    finally:
        allow(host, 9999, old)
