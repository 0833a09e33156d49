"""Search spaces as plain, frozen data. Nothing here knows torch or a graph library."""

from trinas.space.count import cardinality as cardinality
from trinas.space.decision import Decision as Decision
from trinas.space.nodes import Node as Node
from trinas.space.operation import OperationSpec as OperationSpec
from trinas.space.shape import Shape as Shape
from trinas.space.values import IN as IN
from trinas.space.values import Value as Value
from trinas.space.values import Width as Width
from trinas.space.words import cell as cell
from trinas.space.words import choice as choice
from trinas.space.words import concat as concat
from trinas.space.words import parallel as parallel
from trinas.space.words import repeat as repeat
from trinas.space.words import residual as residual
from trinas.space.words import seq as seq
from trinas.space.words import share as share
from trinas.space.words import stack as stack
from trinas.space.words import tree as tree
from trinas.space.words import trellis as trellis
from trinas.space.words import width as width
