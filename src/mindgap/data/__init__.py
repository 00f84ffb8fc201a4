"""The rendered datasets by name; each is one file and one line here."""

from mindgap.data.missing import MISSING
from mindgap.data.synergy import SYNERGY
from mindgap.data.trio import TRIO
from mindgap.data.unique import UNIQUE

DATASETS = {
    "missing": MISSING,
    "unique": UNIQUE,
    "synergy": SYNERGY,
    "trio": TRIO,
}
