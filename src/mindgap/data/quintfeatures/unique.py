"""Unique (P3.2): two images of the same shape, of which only `full` shows the label's texture."""

from mindgap.data.quintfeatures.pairing import Factor, Pairing

UNIQUE = Pairing(
    modalities=("full", "partial"),
    weak="partial",
    label=(Factor("fg_shape", ("full", "partial")), Factor("fg_texture", ("full",))),
)
