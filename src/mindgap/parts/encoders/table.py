"""The encoder of tables: the paper's two-layer perceptron for laboratory values (A.2)."""

from torch import Tensor, nn

from mindgap.base.settings import Width


class TableMLP(nn.Module):
    """Two layers, both with a ReLU: the projection that follows begins with a linear layer.

    No batch normalisation: the columns come scaled.
    """

    def __init__(self, shape: tuple[int, ...], hidden: Width = 256):
        super().__init__()
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"hidden is {hidden!r}: a whole number of at least 1")
        self.out_features = hidden
        self.layers = nn.Sequential(
            nn.Linear(shape[0], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )

    @staticmethod
    def prepare(x_BF: Tensor) -> Tensor:
        return x_BF.float()

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.layers(x_BF)
