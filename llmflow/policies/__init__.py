"""llmflow's own policies, one a file."""

from llmflow.policies._budget import Budget
from llmflow.policies._bulkhead import Bulkhead
from llmflow.policies._cache import Cache
from llmflow.policies._circuit_breaker import CircuitBreaker
from llmflow.policies._deadline import Deadline
from llmflow.policies._fallback import Fallback
from llmflow.policies._hedge import Hedge
from llmflow.policies._rate_limit import RateLimit
from llmflow.policies._repair import Repair
from llmflow.policies._retry import Retry
from llmflow.policies._timeout import Timeout

__all__ = [
    "Budget",
    "Bulkhead",
    "Cache",
    "CircuitBreaker",
    "Deadline",
    "Fallback",
    "Hedge",
    "RateLimit",
    "Repair",
    "Retry",
    "Timeout",
]
