"""PowerBALD (Kirsch et al., TMLR 2023): draws in proportion to a power of BALD's mutual information, not its
top.

Formula: n draws without replacement with probability proportional to s_i^beta, s BALD's score (`bald`), by
`power`.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.bald import scores
from mindgap.parts.query.power import Beta, draw_by_power


def power_bald(
    view: PoolView, n: int, passes: Annotated[int, Field(ge=2, le=10_000)] = 50, beta: Beta = 1.0
) -> Tensor:
    """n draws in proportion to (mutual information)^beta; raises ValueError when the model has no dropout."""
    return draw_by_power(scores(view, passes), n, beta, view.rng)
