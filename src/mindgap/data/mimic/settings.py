"""What can be chosen about the extraction; everything else is fixed in the modules beside this one."""

from dataclasses import dataclass, fields

from mindgap.data.mimic.ecg import SAMPLES, SCALINGS
from mindgap.data.mimic.labs import LABS
from mindgap.data.mimic.raw import RELEASES


@dataclass(frozen=True)
class Settings:
    """Defaults are the paper's, or where it is silent our choice (docs/decisions.md).

    The test set is `test_subjects` subjects, or `test_fraction` of them where there are too few (the demo).
    `ecg_samples` divides 5000: blocks of samples are averaged. `ecg_scaling`: whole recording or each lead.
    `missing_flags` doubles the lab columns: behind the values 1 where a value was imputed, else 0.
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

    def __post_init__(self):
        for field in fields(self):
            value, kinds = getattr(self, field.name), {float: (float, int)}.get(field.type, (field.type,))
            if type(value) not in kinds:
                raise ValueError(f"{field.name} is {value!r}: make it of type {field.type.__name__}")
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
