"""Recorded traces, whoever wrote them: `open.py` opens one, `kind.py` tells what is one."""
