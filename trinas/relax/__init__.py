"""Relaxations: K logits of one choice to K weights on the simplex.

Functions take any `dim`; modules work on the last one and share one signature, so that a
supernet can call any of them. Schedules turn progress into radii and temperatures.
"""

from trinas.relax._order import Order as Order
from trinas.relax.gumbel import gumbel_softmax as gumbel_softmax
from trinas.relax.gumbel import reinmax as reinmax
from trinas.relax.modules import GumbelSoftmax as GumbelSoftmax
from trinas.relax.modules import ReinMax as ReinMax
from trinas.relax.modules import Relaxation as Relaxation
from trinas.relax.modules import Softmax as Softmax
from trinas.relax.modules import SortedSparsestmax as SortedSparsestmax
from trinas.relax.modules import Sparsemax as Sparsemax
from trinas.relax.modules import Sparsestmax as Sparsestmax
from trinas.relax.ordered import order_penalty as order_penalty
from trinas.relax.ordered import sorted_sparsestmax as sorted_sparsestmax
from trinas.relax.schedule import Constant as Constant
from trinas.relax.schedule import Cosine as Cosine
from trinas.relax.schedule import Exponential as Exponential
from trinas.relax.schedule import Linear as Linear
from trinas.relax.schedule import Schedule as Schedule
from trinas.relax.simplex import circumradius as circumradius
from trinas.relax.simplex import softmax as softmax
from trinas.relax.simplex import sparsemax as sparsemax
from trinas.relax.simplex import sparsestmax as sparsestmax
