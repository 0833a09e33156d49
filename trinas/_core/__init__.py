"""Leaf modules: errors, registries. They import nothing of trinas."""
