"""Query methods: functions `method(view, n, **hyperparameters)` of n distinct positions in the view."""

from typing import Any

from mindgap.base.plugins import Registry, check_call
from mindgap.parts.query.alfa_mix import alfa_mix
from mindgap.parts.query.badge import badge
from mindgap.parts.query.bald import bald
from mindgap.parts.query.bmmal import bmmal
from mindgap.parts.query.class_balanced_oracle import class_balanced_oracle
from mindgap.parts.query.contract import Method
from mindgap.parts.query.disagreement import disagreement
from mindgap.parts.query.entropy import entropy
from mindgap.parts.query.grace_r import grace_r
from mindgap.parts.query.greedy_oracle import greedy_oracle
from mindgap.parts.query.kcenter_greedy import kcenter_greedy
from mindgap.parts.query.margin import margin
from mindgap.parts.query.max_herding import max_herding
from mindgap.parts.query.max_modality_entropy import max_modality_entropy
from mindgap.parts.query.mcover import mcover
from mindgap.parts.query.power import power
from mindgap.parts.query.power_bald import power_bald
from mindgap.parts.query.presence_balanced import presence_balanced
from mindgap.parts.query.presence_quota import presence_quota
from mindgap.parts.query.random_ import random
from mindgap.parts.query.rlmba import RLMBA
from mindgap.parts.query.rlmba_score import rlmba_score
from mindgap.parts.query.teach import teach
from mindgap.parts.query.typiclust import typiclust
from mindgap.parts.query.weak_badge import weak_badge
from mindgap.parts.query.weak_entropy import weak_entropy


def _of_package(thing: Any, group: str) -> Method:
    """What an entry point of another package names, a Method or what one is made of, as a Method.

    Reports know a control by its group, `mindgap.control`, as they load no method.
    """
    control = group == "mindgap.control"
    method = thing if isinstance(thing, Method) else Method(thing, kind="control" if control else "query")
    if (method.kind == "control") != control:
        right = "mindgap.query" if control else "mindgap.control"
        raise ValueError(f"its kind is {method.kind!r}: declare it in the group {right}")
    check_call(method.fn, method.given, "a policy's rng" if method.learns else "view and n")
    return method


METHODS = Registry(
    {
        "random": Method(random),
        "entropy": Method(entropy),
        "margin": Method(margin),
        "bald": Method(bald, dropout=True),
        "kcenter_greedy": Method(kcenter_greedy),
        "badge": Method(badge),
        "bmmal": Method(bmmal),
        "grace_r": Method(grace_r, kind="reconstruction"),
        "weak_entropy": Method(weak_entropy),
        "weak_badge": Method(weak_badge),
        "max_modality_entropy": Method(max_modality_entropy),
        "disagreement": Method(disagreement),
        "presence_quota": Method(presence_quota),
        "power": Method(power),
        "power_bald": Method(power_bald, dropout=True),
        "typiclust": Method(typiclust),
        "max_herding": Method(max_herding),
        "alfa_mix": Method(alfa_mix),
        "rlmba_score": Method(rlmba_score, kind="reconstruction"),
        "rlmba": Method(RLMBA, kind="reconstruction"),
        "teach": Method(teach),
        "mcover": Method(mcover),
        "class_balanced_oracle": Method(class_balanced_oracle, kind="control", oracle=True),
        "greedy_oracle": Method(greedy_oracle, kind="control", oracle=True),
        "presence_balanced": Method(presence_balanced, kind="control"),
    },
    ("mindgap.query", "mindgap.control"),
    _of_package,
)
