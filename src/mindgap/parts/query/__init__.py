"""Query methods: functions `method(view, n, **hyperparameters)` of n distinct positions in the view."""

from mindgap.parts.query.badge import badge
from mindgap.parts.query.bald import bald
from mindgap.parts.query.bmmal import bmmal
from mindgap.parts.query.class_balanced_oracle import class_balanced_oracle
from mindgap.parts.query.contract import Method
from mindgap.parts.query.entropy import entropy
from mindgap.parts.query.grace_r import grace_r
from mindgap.parts.query.kcenter_greedy import kcenter_greedy
from mindgap.parts.query.margin import margin
from mindgap.parts.query.presence_balanced import presence_balanced
from mindgap.parts.query.random_ import random

METHODS = {
    "random": Method(random),
    "entropy": Method(entropy),
    "margin": Method(margin),
    "bald": Method(bald, dropout=True),
    "kcenter_greedy": Method(kcenter_greedy),
    "badge": Method(badge),
    "bmmal": Method(bmmal),
    "grace_r": Method(grace_r, kind="reconstruction"),
    "class_balanced_oracle": Method(class_balanced_oracle, kind="control", oracle=True),
    "presence_balanced": Method(presence_balanced, kind="control"),
}
