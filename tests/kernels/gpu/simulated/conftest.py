"""How the simulator's threads take turns."""

import sys

SWITCH_S = 50e-6
"""The simulator asks its threads again and again how far they are, which keeps them from running
until a turn ends: with Python's own turns of 5 ms that is most of the time. Short turns also mix
the threads of a block far more, so that one that reads too early is found."""

sys.setswitchinterval(SWITCH_S)
