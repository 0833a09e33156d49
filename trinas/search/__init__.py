"""Searching a supernet, and training what came out."""

from trinas._core.errors import ConfigError as ConfigError
from trinas.search.candidates import Budget as Budget
from trinas.search.checks import DivergenceError as DivergenceError
from trinas.search.config import Batches as Batches
from trinas.search.config import CosineDecay as CosineDecay
from trinas.search.config import CostControl as CostControl
from trinas.search.config import Halving as Halving
from trinas.search.config import Loss as Loss
from trinas.search.config import SearchConfig as SearchConfig
from trinas.search.config import TrainConfig as TrainConfig
from trinas.search.prefetch import Prefetched as Prefetched
from trinas.search.prefetch import prefetch as prefetch
from trinas.search.random_search import RandomSearch as RandomSearch
from trinas.search.random_search import RandomSearchConfig as RandomSearchConfig
from trinas.search.random_search import SampleReport as SampleReport
from trinas.search.report import Spread as Spread
from trinas.search.report import StepReport as StepReport
from trinas.search.report import spreads as spreads
from trinas.search.search import Search as Search
from trinas.search.training import Training as Training
