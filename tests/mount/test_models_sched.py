# SPDX-License-Identifier: Apache-2.0
"""The life of a model as the scheduler sees it: kept at the end of a training,
deployed, used by predict jobs, loaded and inherited by other jobs."""
import json
import os
import time

import pytest
from conftest import Refused, eventually, read_json
from test_jobs import breast, quick_keys

ID = "arbiter-10001#guest-9999#host-10000#model"


def store(p, *path):
    return os.path.join(p.state, "models", ID, *path)


@pytest.fixture(scope="module")
def trained(three):
    dsl, conf = breast(max_iter=3)
    return three[9999].run(dsl, quick_keys(conf))


def test_a_training_leaves_a_version_at_every_party(three, trained):
    for p in three.parties.values():
        info = read_json(store(p, trained, "info.json"))
        assert info["model_id"] == ID and info["model_version"] == trained
        assert info["party"] == p.id and info["status"] == "success"
        assert info["initiator"] == {"role": "guest", "party": "9999"}
    assert not os.path.exists(store(three[9999], trained, "host-10000"))
