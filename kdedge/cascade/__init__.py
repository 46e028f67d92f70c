"""Let a student answer what it is sure of, and its teacher the rest."""

from kdedge.cascade.cascade import Cascade, CascadeAnswer
from kdedge.cascade.drift import DriftMonitor
from kdedge.cascade.teachers import HttpTeacher

__all__ = ["Cascade", "CascadeAnswer", "DriftMonitor", "HttpTeacher"]
