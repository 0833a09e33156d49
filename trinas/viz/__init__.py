"""Drawings of spaces, graphs, genotypes and supernets.

Only rendering needs Graphviz, and imports it; the text of a drawing needs nothing.
"""

from trinas.viz.draw import HasWeights as HasWeights
from trinas.viz.draw import draw as draw
from trinas.viz.drawing import Drawing as Drawing
from trinas.viz.drawing import DrawingError as DrawingError
