"""Settings that every test and every process started by a test shares."""

from __future__ import annotations

import os

# Before torch and matplotlib are imported: small problems are slower on many threads, and there
# is no screen. A value set outside wins.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
