from .probe import ExpectedTeacher, Probe
from .reference import write_reason, write_reference
from .report import ProbeReport

__all__ = ["ExpectedTeacher", "Probe", "ProbeReport", "write_reason", "write_reference"]
