"""The numbers that define the W8A8 scheme, shared by the kernels and by their plain-torch reference."""

WEIGHT_QMIN = -128
ACTIVATION_QMIN = -127
QMAX = 127

# absmax is clamped from below by this, so that an all-zero row has a positive scale.
ABSMAX_FLOOR = 1e-8

# 131072 * 127 * 128 < 2**31: the int32 accumulator cannot overflow up to this K.
MAX_IN_FEATURES = 131072
