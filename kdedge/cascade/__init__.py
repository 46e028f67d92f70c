"""Let a student answer the texts that it is sure about, and its teacher the others.

`kdedge/runtime/agreement.py` chooses the threshold, because `kdedge bench` shows it too.
"""

from kdedge.cascade.cascade import Cascade, CascadeAnswer
from kdedge.cascade.drift import DriftMonitor
from kdedge.cascade.teachers import HttpTeacher

__all__ = ["Cascade", "CascadeAnswer", "DriftMonitor", "HttpTeacher"]
