"""Benchmarks whose truth is known, and methods scored against them.

Planted tasks, a table of networks trained alone on noisy digits, and NAS-Bench-201's table
share one interface, `Benchmark`. Nothing here is imported by ``import trinas``.
"""

from trinas.bench.benchmark import Benchmark as Benchmark
from trinas.bench.benchmark import Charge as Charge
from trinas.bench.benchmark import Truth as Truth
from trinas.bench.catalogue import load as load
from trinas.bench.catalogue import names as names
from trinas.bench.methods import BASELINES as BASELINES
from trinas.bench.methods import METHODS as METHODS
from trinas.bench.methods import Allowance as Allowance
from trinas.bench.methods import Found as Found
from trinas.bench.methods import found as found
from trinas.bench.methods import gradient_search as gradient_search
from trinas.bench.nats import nas_bench_201 as nas_bench_201
from trinas.bench.noisy_digits import digits as digits
from trinas.bench.passes import Passes as Passes
from trinas.bench.planting import planted as planted
from trinas.bench.problem import Measured as Measured
from trinas.bench.problem import Problem as Problem
from trinas.bench.problem import Recipe as Recipe
from trinas.bench.problem import Task as Task
from trinas.bench.problem import Trained as Trained
from trinas.bench.signals import discretisation_gap as discretisation_gap
from trinas.bench.signals import rank_correlation as rank_correlation
from trinas.bench.table import Table as Table
from trinas.bench.table import fill as fill
