"""The commands of ``nabla``."""

from __future__ import annotations

#: Command → what it does. ``nabla.cli.<command>`` has ``add_arguments(parser)`` and ``run(call)``.
COMMANDS = {
    "solve": "Answer prompts: sandbox prompts as they are, others with --lm and --rm.",
    "list": "List the slots and their components.",
    "models": "List the models at hand: their size, their cost, and how to get what is missing.",
    "show": "Show a configuration with every default filled in.",
    "view": "Make a page that shows what solves did, token by token and step by step.",
    "compare": "Compare methods on the same problems: held-out ones of a sandbox family, or any task's.",
    "estimators": "Measure the gradient estimators' bias, variance and cost against exact gradients.",
    "evaluate": "Compare methods at equal budgets on whole tasks, with statistics; resumable.",
    "ablate": "Change one method factor by factor on the same problems: effects, interactions, cost.",
    "plot": "Draw the figures of an evaluation, an ablation, the theory or the estimators again.",
    "diagnose": "Say before a study which reward, place and method will pay, with the numbers that say so.",
    "demo": "Solve a handful of held-out problems with the embedded models.",
    "bench": "Measure what refinement costs, beside its floor, a dense reference and generate.",
    "theory": "Check the duality of DTO and PPO (Theorem 4.1) numerically.",
}
