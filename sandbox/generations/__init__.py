"""The closed loop: a society, its data, training, evaluation, the trained model in the next one."""

from sandbox.generations.child import PhaseFailed
from sandbox.generations.plan import read_plan
from sandbox.generations.results import Generation, Study
from sandbox.generations.study import Say, run_study

__all__ = ["Generation", "PhaseFailed", "Say", "Study", "read_plan", "run_study"]
