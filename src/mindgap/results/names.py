"""How names of the code read in a report: the paper's words where it has them, else the name itself."""

from collections.abc import Iterable

from mindgap.base.plugins import declared

# The controls see what no query method may see, or have no claim to choose well: marked, and never the best.
CONTROLS = (
    "class_balanced_oracle",
    "greedy_oracle",
    "presence_balanced",
    *(one.entry.name for one in declared("mindgap.control")),
)
# Methods of our own, registered before they were run.
OUR_METHODS = ("teach", "mcover")
OUR_MITIGATIONS = ("coteach", "unimodal_loss")

METHOD_NAMES = {
    "random": "Random",
    "entropy": "Entropy",
    "margin": "Margin",
    "bald": "BALD",
    "kcenter_greedy": "KCG",
    "badge": "BADGE",
    "bmmal": "BMMAL",
    "grace_r": "GRACE-R",
    "weak_entropy": "Weak entropy",
    "weak_badge": "Weak BADGE",
    "max_modality_entropy": "Max entropy",
    "disagreement": "Disagreement",
    "presence_quota": "Presence quota",
    "power": "Power sampling",
    "power_bald": "PowerBALD",
    "typiclust": "TypiClust",
    "max_herding": "MaxHerding",
    "alfa_mix": "ALFA-Mix",
    "rlmba_score": "RL-MBA-R score",
    "rlmba": "RL-MBA-R",
    "teach": "Teach",
    "mcover": "MCover",
    "class_balanced_oracle": "Class-balanced oracle",
    "greedy_oracle": "Greedy oracle",
    "presence_balanced": "Presence-balanced",
}

DATASET_NAMES = {
    "missing": "Missing",
    "share": "Share",
    "share_shortcut": "Share with a shortcut",
    "unique": "Unique",
    "synergy": "Synergy",
    "trio": "Trio",
    "food101": "Food101",
    "mimic": "MIMIC",
}

MODALITY_NAMES = {"cifar10": "CIFAR-10", "mnist": "MNIST", "ecg": "ECG"}

MITIGATION_NAMES = {
    "none": "no mitigation",
    "moddrop": "ModDrop",
    "multi_loss": "multi-loss",
    "ogm_ge": "OGM-GE",
    "agm": "AGM",
    "mmpareto": "MMPareto",
    "opm": "OPM",
    "pmr": "PMR",
    "shortcut_aware": "shortcut-aware",
    "unimodal_ensemble": "unimodal ensemble",
    "unimodal_loss": "unimodal loss",
    "coteach": "co-teaching",
}

# How a text begins that lists what the records of runs lack.
NOT_RECORDED = "not recorded"


def scale_name(scale: str, *changes: str) -> str:
    """The scale of runs whose settings differ from its own as `changes` say (`results.scales`; "": not).

    "tiny", "tiny, changed", or "tiny, not all recorded" where no more is known.
    """
    told = list(filter(None, changes))
    if not told:
        return scale
    known = any(not text.startswith(NOT_RECORDED) for text in told)
    return f"{scale}, changed" if known else f"{scale}, not all recorded"


def method_name(query: str) -> str:
    return METHOD_NAMES.get(query, query)


def dataset_name(dataset: str) -> str:
    return DATASET_NAMES.get(dataset, dataset)


def mitigation_name(mitigation: str) -> str:
    return MITIGATION_NAMES.get(mitigation, mitigation)


def subset_title(subset: str, subsets: Iterable[str] = ()) -> str:
    """The name of a subset: "Rare", "Twin A + Solo"; all modalities are "Both", or "All" from three on.

    `subsets`: those of its dataset, of which the largest has all modalities.
    """
    names = subset.split("+")
    if len(names) > 1 and subset == joint_of(subsets):
        return "Both" if len(names) == 2 else "All"
    return " + ".join(MODALITY_NAMES.get(name, name.replace("_", " ").title()) for name in names)


def subset_order(subsets: list[str]) -> list[str]:
    """As the paper prints them: of two modalities the pair in the middle; of more, small subsets first.

    `subsets` come in the dataset's order.
    """
    modalities = joint_of(subsets).split("+")
    if len(modalities) == 2:
        return [modalities[0], "+".join(modalities), modalities[1]]
    return sorted(subsets, key=lambda subset: [subset.count("+"), *map(modalities.index, subset.split("+"))])


def joint_of(subsets: Iterable[str]) -> str:
    """The largest of a dataset's subsets, which names all its modalities in their order."""
    return max(subsets, key=lambda subset: subset.count("+"), default="")
