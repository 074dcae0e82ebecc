"""Programs that run alone in the peers' environment: nothing of the project or its dependencies is there."""

import sys

sys.modules["kernels"] = None  # type: ignore[assignment] # transformers would take ours for an optional helper of its own
