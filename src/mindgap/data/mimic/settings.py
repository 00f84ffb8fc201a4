"""What can be chosen about the extraction; everything else is fixed in the modules beside this one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite

from mindgap.data.mimic.ecg import SAMPLES, SCALINGS
from mindgap.data.mimic.labs import LABS, Lab, adapted
from mindgap.data.mimic.raw import RELEASES, TABLES

ITEM = {"itemid": int, "label": str, "fluid": str, "category": str}


@dataclass(frozen=True)
class Settings:
    """Defaults are the paper's, or where it is silent our choice (docs/decisions.md).

    The test set is `test_subjects` subjects, or `test_fraction` of them where there are too few (the demo).
    `ecg_samples` divides 5000: blocks of samples are averaged. `ecg_scaling`: whole recording or each lead.
    `missing_flags` doubles the lab columns: behind the values 1 where a value was imputed, else 0.

    What may differ between releases, by the labels of labs.py (docs/data.md): `lab_units`, further unit
    strings and the factor from each to the pinned unit; `lab_items`, what d_labitems has of a lab;
    `unusual_labs`, labs whose values are not compared with the usual ones; `rows` of tables.
    """

    release: str = "3.1"
    window_hours: int = 24
    horizon_days: int = 365
    test_subjects: int = 30_000
    test_fraction: float = 0.0
    split_seed: int = 2603
    min_labs: int = 1
    ecg_scaling: str = "joint"
    ecg_samples: int = 5000
    missing_flags: bool = False
    lab_units: dict = field(default_factory=dict)
    lab_items: dict = field(default_factory=dict)
    unusual_labs: list = field(default_factory=list)
    rows: dict = field(default_factory=dict)

    def __post_init__(self):
        for one in fields(self):
            value, kinds = getattr(self, one.name), {float: (float, int)}.get(one.type, (one.type,))
            if type(value) not in kinds:
                raise ValueError(f"{one.name} is {value!r}: make it of type {one.type.__name__}")
        ranges = {
            "window_hours": (1, 24 * 365),
            "horizon_days": (1, 365 * 100),
            "split_seed": (0, 2**32 - 1),
            "min_labs": (1, len(LABS)),
            "ecg_samples": (1, SAMPLES),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)!r}: make it a number in {low}..{high}")
        for name, known in {"release": RELEASES, "ecg_scaling": SCALINGS}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        if SAMPLES % self.ecg_samples:
            raise ValueError(f"ecg_samples is {self.ecg_samples}: make it a divisor of {SAMPLES}")
        if not 0 <= self.test_fraction < 1 or self.test_subjects < 0:
            raise ValueError("test_fraction is a share below 1, test_subjects a number of subjects")
        if (self.test_subjects > 0) == (self.test_fraction > 0):
            raise ValueError("give either test_subjects or test_fraction, and 0 for what you do not give")
        _check_labs("lab_units", self.lab_units)
        _check_labs("lab_items", self.lab_items)
        _check_labs("unusual_labs", self.unusual_labs)
        _check_units(self.lab_units)
        _check_items(self.lab_items)
        for table, count in self.rows.items():
            if table not in TABLES or type(count) is not int or count < 1:
                raise ValueError(
                    f"rows has {table!r}: {count!r}; give a number of rows of {', '.join(TABLES)}"
                )

    @property
    def labs(self) -> tuple[Lab, ...]:
        """The fifty as this release has them."""
        return adapted(self.lab_units, self.lab_items)


def _check_labs(name: str, given: Iterable) -> None:
    known = [lab.label for lab in LABS]
    for label in given:
        if label not in known:
            raise ValueError(f"{name} has {label!r}; the labs are {', '.join(map(repr, known))}")


def _check_units(lab_units: Mapping) -> None:
    for label, units in lab_units.items():
        of_units = units.items() if isinstance(units, dict) else [(units, None)]
        for unit, factor in of_units:
            number = type(factor) in (int, float) and isfinite(factor) and factor > 0
            if not number or type(unit) is not str or unit != unit.strip():
                raise ValueError(
                    f"lab_units of {label!r} has {unit!r}: {factor!r}; give a unit, as text, and the factor "
                    "above 0 that makes the expected unit of it, such as {mg/dl: 1}"
                )


def _check_items(lab_items: Mapping) -> None:
    for label, item in lab_items.items():
        of_item = item.items() if isinstance(item, dict) else [(repr(item), None)]
        for key, value in of_item:
            if type(value) is not ITEM.get(key):
                asked = ", ".join(f"{name} ({kind.__name__})" for name, kind in ITEM.items())
                raise ValueError(f"lab_items of {label!r} has {key!r}: {value!r}; it may have {asked}")
    numbers = [lab.itemid for lab in adapted({}, lab_items)]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise ValueError(f"lab_items gives two labs the itemid {twice}: each has one of its own")
