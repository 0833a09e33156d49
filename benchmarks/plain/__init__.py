"""Supernets as published codes write them, to compare with.

Plain torch modules in a loop: every option of every choice runs at every step, is
multiplied by its weight, and the products are added up. Feature maps are N C H W in memory,
and nothing is skipped, shared or fused. Each computes what the trinas supernet of the same
space computes, which the tests prove.
"""
