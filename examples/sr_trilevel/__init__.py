"""The reference example: trilevel search for super-resolution networks."""
