"""lpoptax: descent in lp norms, as Optax gradient transformations."""

from lpoptax._coupling import StaceyCouplingState as StaceyCouplingState
from lpoptax._coupling import stacey_coupling as stacey_coupling
from lpoptax._lpsgd import lpsgd as lpsgd
from lpoptax._lpsgd import lpsgdm as lpsgdm
from lpoptax._mirror_descent import MirrorDescentState as MirrorDescentState
from lpoptax._mirror_descent import mirror_descent as mirror_descent
from lpoptax._momentum import ScaleByInterpolatedMomentumState as ScaleByInterpolatedMomentumState
from lpoptax._momentum import scale_by_interpolated_momentum as scale_by_interpolated_momentum
from lpoptax._normalization import normalize_by_update_rms as normalize_by_update_rms
from lpoptax._power import ScaleByLpPowerState as ScaleByLpPowerState
from lpoptax._power import lp_power as lp_power
from lpoptax._power import scale_by_lp_power as scale_by_lp_power
from lpoptax._schatten import ScaleBySchattenPowerState as ScaleBySchattenPowerState
from lpoptax._schatten import scale_by_schatten_power as scale_by_schatten_power
from lpoptax._schatten_sgdm import schatten_sgdm as schatten_sgdm
from lpoptax._schedules import cosine_p_schedule as cosine_p_schedule
from lpoptax._schedules import gradual_p_schedule as gradual_p_schedule
from lpoptax._stacey import stacey as stacey
from lpoptax._steepest_descent import ScaleByLpSteepestDescentState as ScaleByLpSteepestDescentState
from lpoptax._steepest_descent import scale_by_lp_steepest_descent as scale_by_lp_steepest_descent

__version__ = "0.2.0"

__all__ = [
    "MirrorDescentState",
    "ScaleByInterpolatedMomentumState",
    "ScaleByLpPowerState",
    "ScaleByLpSteepestDescentState",
    "ScaleBySchattenPowerState",
    "StaceyCouplingState",
    "cosine_p_schedule",
    "gradual_p_schedule",
    "lp_power",
    "lpsgd",
    "lpsgdm",
    "mirror_descent",
    "normalize_by_update_rms",
    "scale_by_interpolated_momentum",
    "scale_by_lp_power",
    "scale_by_lp_steepest_descent",
    "scale_by_schatten_power",
    "schatten_sgdm",
    "stacey",
    "stacey_coupling",
]
