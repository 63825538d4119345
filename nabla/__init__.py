"""nabla: test-time gradient descent on text (∇-Reasoner, arXiv 2603.04948)."""

from nabla.callbacks.base import Callback
from nabla.dto import DTO
from nabla.engine import Engine, Session
from nabla.errors import NablaError
from nabla.loop import TestTimeLoop
from nabla.methods.base import Method
from nabla.models.causal_lm import CausalLM
from nabla.reasoner import NablaReasoner
from nabla.rewards.base import Reward
from nabla.types import Message, Prompt, Sampling, Solution, Trajectory

__version__ = "0.1.0"

__all__ = [
    "DTO",
    "Callback",
    "CausalLM",
    "Engine",
    "Message",
    "Method",
    "NablaError",
    "NablaReasoner",
    "Prompt",
    "Reward",
    "Sampling",
    "Session",
    "Solution",
    "TestTimeLoop",
    "Trajectory",
]
