"""Missing (P1.1): two images of the same shape, one of which is nearly always absent in training.

When a draw would leave a sample empty, one modality is kept at random; so `rare` is there in 14.5 % of the
samples and `frequent` in 94.5 %, not in 10 and 90.
"""

from mindgap.data.quintfeatures.pairing import Factor, Pairing

MISSING = Pairing(
    modalities=("rare", "frequent"),
    weak="rare",
    label=(Factor("fg_shape", ("rare", "frequent")),),
    absence={"rare": 0.9, "frequent": 0.1},
)
