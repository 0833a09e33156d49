"""Supernets and plain networks, compiled from graphs by one compiler."""

from trinas.supernet.architecture import Architecture as Architecture
from trinas.supernet.build import build as build
from trinas.supernet.mixture import Mixture as Mixture
from trinas.supernet.mixture import Widths as Widths
from trinas.supernet.network import Network as Network
from trinas.supernet.statistics import batch_statistics as batch_statistics
from trinas.supernet.statistics import recalibrate as recalibrate
from trinas.supernet.supernet import Supernet as Supernet
from trinas.supernet.supernet import compile_supernet as compile_supernet
from trinas.supernet.supernet import derive as derive
