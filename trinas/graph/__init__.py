"""Spaces as graphs: lowering, the contract, passes, genotypes."""

from trinas.graph.genotype import Genotype as Genotype
from trinas.graph.genotype import enumerate_genotypes as enumerate_genotypes
from trinas.graph.genotype import sample as sample
from trinas.graph.ir import Graph as Graph
from trinas.graph.ir import Source as Source
from trinas.graph.ir import Vertex as Vertex
from trinas.graph.ir import require_graph as require_graph
from trinas.graph.lint import lint as lint
from trinas.graph.lower import lower as lower
from trinas.graph.passes import remove_dead as remove_dead
from trinas.graph.passes import specialise as specialise
from trinas.graph.walk import outcomes as outcomes
from trinas.graph.walk import settle as settle
