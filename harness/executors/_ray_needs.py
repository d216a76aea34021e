"""What a job asks of a Ray cluster, and which nodes have it. A node is its resources as Ray names them: CPU, GPU, memory, and its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.costs.resources import Resources

Node = Mapping[str, float]


def missing(resources: Resources, own: Mapping[str, float], nodes: Sequence[Node]) -> str:
    """What no node has; empty where one has all that has to be there."""
    gpus = resources.gpus if resources.gpus_required else 0.0
    for name, number in [("GPU", gpus), *own.items()]:
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if most < number:
            return f"no node has {number:g} {name} (the most is {most:g})"
    if not any(_fits(node, {"GPU": gpus, **own}) for node in nodes):
        return f"no node has all of {', '.join(f'{number:g} {name}' for name, number in [('GPU', gpus), *own.items()])}"
    return ""


def _fits(node: Node, needs: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= number for name, number in needs.items())


def fitted(resources: Resources, own: Mapping[str, float], nodes: Sequence[Node], usual_cpus: int) -> dict[str, Any]:
    """A job's needs as options of a Ray task, at most as much as the largest node has: what asks for more has that node for itself.

    Estimated GPUs are left out where there are none. Without nodes, they are as asked for.
    """
    gpus, memory = resources.gpus, float(resources.memory)
    if nodes:
        gpus = min(gpus, max(node.get("GPU", 0.0) for node in nodes))
    cpus = float(resources.replaced(gpus=gpus).threads(usual_cpus))
    if nodes:
        fitting = [node for node in nodes if _fits(node, {"GPU": gpus, **own})] or nodes
        cpus = min(cpus, max(node.get("CPU", 0.0) for node in fitting))
        fitting = [node for node in fitting if _fits(node, {"CPU": cpus})]
        memory = min(memory, max(node.get("memory", 0.0) for node in fitting))
    gpus = float(int(gpus)) if gpus > 1 else round(gpus, 4)  # Ray gives whole ones, or a part of one
    return {"num_cpus": cpus, "num_gpus": gpus, "memory": int(memory), "resources": dict(own)}


def room(needs: Mapping[str, Any], nodes: Sequence[Node]) -> int:
    """How many such tasks the nodes have room for at once."""
    wanted = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"], "memory": needs["memory"], **needs["resources"]}
    wanted = {name: number for name, number in wanted.items() if number > 0}
    return sum(int(min((node.get(name, 0.0) / number for name, number in wanted.items()), default=1)) for node in nodes)
