"""Leaf modules: errors, registries, places in the user's code. They import nothing above."""
