"""A process's rank, from the environment of the Indexed Job or of torchrun's agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.finetunejob import Parallelism
from finetune_api.pod_contracts.run import RENDEZVOUS_PORT

NODE_RANK = "JOB_COMPLETION_INDEX"
HOST = "RENDEZVOUS_HOST"
PORT = "RENDEZVOUS_PORT"
AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(frozen=True)
class Ranks:
    """The ranks of one process, and the size of the gang, as torchrun defines them."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    host: str
    port: int
    agent_has_store: bool = False

    def to_environment(self) -> dict[str, str]:
        """The environment variables that torchrun sets for its workers, and accelerate and transformers read."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
        }


def ranks_alone_on_node(parallelism: Parallelism, environment: Mapping[str, str]) -> Ranks:
    """The ranks of the only process of a node."""
    host, port = rendezvous(environment)
    return Ranks(
        rank=node_rank(environment),
        world_size=parallelism.nodes,
        local_rank=0,
        local_world_size=1,
        host=host,
        port=port,
    )


def ranks_under_agent(environment: Mapping[str, str]) -> Ranks:
    """The ranks that torchrun's agent gave this process."""
    return Ranks(
        rank=int(environment["RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        local_rank=int(environment["LOCAL_RANK"]),
        local_world_size=int(environment["LOCAL_WORLD_SIZE"]),
        host=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        agent_has_store=environment.get(AGENT_STORE) == "True",
    )


def rendezvous(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port at which rank 0 listens."""
    return environment.get(HOST, "localhost"), int(environment.get(PORT, RENDEZVOUS_PORT))


def node_rank(environment: Mapping[str, str]) -> int:
    """The rank of this node: the completion index of its Pod."""
    return int(environment.get(NODE_RANK, "0"))
