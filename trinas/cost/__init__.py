"""What a network costs, and what a relaxed space can be expected to cost."""

from trinas.cost.count import Cost as Cost
from trinas.cost.count import Metric as Metric
from trinas.cost.count import count as count
from trinas.cost.count import macs as macs
from trinas.cost.count import params as params
from trinas.cost.expected import ExpectedCost as ExpectedCost
