"""Query methods: functions `method(view, n, **hyperparameters)` of n distinct positions in the view."""

from mindgap.query.badge import badge
from mindgap.query.bald import bald
from mindgap.query.bmmal import bmmal
from mindgap.query.class_balanced_oracle import class_balanced_oracle
from mindgap.query.contract import Method
from mindgap.query.entropy import entropy
from mindgap.query.grace_r import grace_r
from mindgap.query.kcenter_greedy import kcenter_greedy
from mindgap.query.margin import margin
from mindgap.query.presence_balanced import presence_balanced
from mindgap.query.random_ import random

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
