"""`python -m harness`."""

import os
import sys

# Before torch and numpy are imported: threads that spin while they wait make small operations some twenty times slower on
# a machine that others use too. Torch's own threads do the heavy work; numpy's and scipy's would only spin beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from harness.cli import main

sys.exit(main())
