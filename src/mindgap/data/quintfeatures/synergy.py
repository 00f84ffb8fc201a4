"""Synergy (P3.3): two unrelated images; the label is the texture of `partial_a` and the shape of `partial_b`.

Shape is the harder one to learn, so `partial_b` is the weak modality.
"""

from mindgap.data.quintfeatures.pairing import Factor, Pairing

SYNERGY = Pairing(
    modalities=("partial_a", "partial_b"),
    weak="partial_b",
    label=(Factor("fg_texture", ("partial_a",)), Factor("fg_shape", ("partial_b",))),
)
