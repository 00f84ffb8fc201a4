"""Trio: redundancy inside a synergy. Two twins show the same shape, `solo` shows the texture; the label is
both.

A twin is worthless once the other one is there, and nothing works without `solo`. Not in the paper: it is the
dataset on which credit among three modalities has a known answer. None of the three is the weak one.
"""

from mindgap.data.quintfeatures.pairing import Factor, Pairing

TRIO = Pairing(
    modalities=("twin_a", "twin_b", "solo"),
    weak=None,
    label=(Factor("fg_shape", ("twin_a", "twin_b")), Factor("fg_texture", ("solo",))),
)
