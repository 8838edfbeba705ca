"""How the size that is needed grows with d, rho and epsilon together, where the lower bound is to be met."""
