"""Searching a model, and training what came out.

A method is a chain of parts (`chain`), put to work by `run`; `Search`, `RandomSearch` and
`Training` are such chains with a config.
"""

from trinas._core.errors import ConfigError as ConfigError
from trinas._core.errors import DivergenceError as DivergenceError
from trinas.search import methods as methods
from trinas.search import signals as signals
from trinas.search.architecture import Architecture as Architecture
from trinas.search.architecture import architecture as architecture
from trinas.search.averaging import Average as Average
from trinas.search.averaging import average as average
from trinas.search.batches import Batches as Batches
from trinas.search.batches import Data as Data
from trinas.search.candidates import Budget as Budget
from trinas.search.config import RandomSearchConfig as RandomSearchConfig
from trinas.search.config import SearchConfig as SearchConfig
from trinas.search.config import TrainConfig as TrainConfig
from trinas.search.cost_term import CostControl as CostControl
from trinas.search.cost_term import expected_cost as expected_cost
from trinas.search.engine import Run as Run
from trinas.search.optimisers import Optimiser as Optimiser
from trinas.search.optimisers import adam as adam
from trinas.search.optimisers import optimiser as optimiser
from trinas.search.optimisers import sgd as sgd
from trinas.search.part import Chain as Chain
from trinas.search.part import Part as Part
from trinas.search.part import Working as Working
from trinas.search.part import chain as chain
from trinas.search.prefetch import Prefetched as Prefetched
from trinas.search.prefetch import prefetch as prefetch
from trinas.search.random_search import RandomSearch as RandomSearch
from trinas.search.report import SampleReport as SampleReport
from trinas.search.report import Spread as Spread
from trinas.search.report import StepReport as StepReport
from trinas.search.report import spreads as spreads
from trinas.search.running import run as run
from trinas.search.schedules import CosineDecay as CosineDecay
from trinas.search.schedules import Halving as Halving
from trinas.search.search import Search as Search
from trinas.search.selection import likely as likely
from trinas.search.selection import rank as rank
from trinas.search.setting import Setting as Setting
from trinas.search.step import Step as Step
from trinas.search.task import Loss as Loss
from trinas.search.task import Task as Task
from trinas.search.terms import entropy as entropy
from trinas.search.terms import ordered as ordered
from trinas.search.terms import term as term
from trinas.search.training import Training as Training
from trinas.search.watching import prune as prune
from trinas.search.watching import stop_when as stop_when
from trinas.search.watching import watch as watch
from trinas.search.weights import Weights as Weights
from trinas.search.weights import weights as weights
