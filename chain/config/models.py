"""What `chain.yaml` says, as immutable values. The docstrings of the fields are its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from chain.config.dsn import Dsn
from chain.config.values import BatchSize, DatabaseDsn, Duration, FilePath, HttpAddress, Name
from chain.errors import BadInput
from chain.lease import CLOCK_TOLERANCE_S, Terms

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """A part of chain.yaml: closed, immutable, and silent about its input when it is wrong."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an input may hold a password
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: object) -> object:
        # `links:` with every line below it commented out means the defaults, not an error.
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {key: value for key, value in data.items() if value is not None or key not in known}


class RegistryConfig(Section):
    """Where the chain's decisions and leases are kept."""

    dsn: DatabaseDsn
    """Database of the registry."""
    password_file: FilePath | None = None
    """File whose content is the password, relative to chain.yaml."""


class NodeConfig(Section):
    """One event store in a region, and its daemon."""

    name: Name
    """Name of the node, for life."""
    region: Name
    """Region that the node is in; a failover prefers another one."""
    dsn: DatabaseDsn
    """Database of the node."""
    password_file: FilePath | None = None
    """File whose content is the password, relative to chain.yaml."""
    http: HttpAddress
    """host:port at which the node's daemon listens and its peers find it."""


class LinksConfig(Section):
    """How logs are copied from node to node."""

    batch_bytes: BatchSize = Field(default=2 * 1024**2, json_schema_extra={"default": "2MB"})
    """Most bytes that one batch holds, 64MB at most; units are powers of 1024, as in Postgres.

    A link holds up to five batches at a time, and up to eleven if its source is far away.
    """
    batch_events: Count = 50_000
    """Most events that one batch holds."""
    idle: Duration = Field(default=1.0, json_schema_extra={"default": "1s"})
    """How often a caught-up link looks again without a hint."""
    timeout: Duration = Field(default=10.0, json_schema_extra={"default": "10s"})
    """Bound on any single answer of a peer."""


class ClientConfig(Section):
    """How applications write."""

    deadline: Duration = Field(default=30.0, json_schema_extra={"default": "30s"})
    """How long a write may take in all, retries and a failover included."""
    group_events: Count = 4096
    """Most events that one commit of a process holds."""


class LeaseConfig(Section):
    """The head's right to take writes, for a limited time; the ground of automatic failover."""

    enabled: bool = True
    """Whether there is a lease; without one every failover needs the fence or a person's word."""
    duration: Duration = Field(default=3.0, json_schema_extra={"default": "3s"})
    """How long the head may go on without a renewal; a failover waits no longer, but for the margin."""
    margin: Duration = Field(default=0.5, json_schema_extra={"default": "500ms"})
    """By how much the head stops earlier, and all others wait longer; at least 200ms."""
    failsafe: bool = True
    """Whether the head goes on without the registry while all other members promise to stay followers."""

    @model_validator(mode="after")
    def _fits(self) -> LeaseConfig:
        if self.margin < CLOCK_TOLERANCE_S:
            raise ValueError(f"margin must be at least {CLOCK_TOLERANCE_S * 1000:g}ms")
        if self.duration < 4 * self.margin:
            raise ValueError("duration must be at least four times margin")
        return self

    @property
    def terms(self) -> Terms | None:
        """None for a chain without a lease."""
        return Terms(self.duration, self.margin, self.failsafe) if self.enabled else None


class AutomationConfig(Section):
    """What a controller may do by itself."""

    policy: Literal["automatic", "manual"] = "manual"
    """Whether a lost head is replaced without asking. A controller that is manual only observes and says."""
    loss_events: int = Field(default=100_000, ge=0)
    """Most events that an automatic failover may leave behind on the lost head, as far as can be known."""
    loss_seconds: Duration = Field(default=60.0, json_schema_extra={"default": "1m"})
    """Most seconds that the candidate may have been behind when the head was last seen."""
    cool_down: Duration = Field(default=300.0, json_schema_extra={"default": "5m"})
    """After a failover the next one asks a person for so long, unless the last was acknowledged."""
    never: tuple[Name, ...] = ()
    """Nodes that are never promoted by a controller."""
    rejoin: bool = True
    """Whether a node that is back is brought back as tail."""
    lost_after: Duration = Field(default=30.0, json_schema_extra={"default": "30s"})
    """A follower that can't be reached for so long is taken out of the chain."""
    come_home: bool = False
    """Whether the head goes back to the home region as soon as that is whole."""
    every: Duration = Field(default=0.25, json_schema_extra={"default": "250ms"})
    """How often the chain is looked at."""


class VerifyConfig(Section):
    """How copies are proven to be complete, equal and in time (`chainctl serve verifier`)."""

    http: HttpAddress | None = None
    """host:port at which the verifier listens, and `chainctl status` finds it."""
    user: str | None = None
    """Who the verifier is at the databases of nodes and registry; else the same as in their dsn."""
    password_file: FilePath | None = None
    """File whose content is that user's password, relative to chain.yaml."""
    every: Duration = Field(default=1.0, json_schema_extra={"default": "1s"})
    """How often neighbours are compared in what is new."""
    again: Duration = Field(default=60.0, json_schema_extra={"default": "1m"})
    """How long ago a segment must have been read to be read again: a round takes no less."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Share of one connection's time that reading again takes, and a fifth of what reading new events may."""
    stale: Duration = Field(default=86400.0, json_schema_extra={"default": "24h"})
    """A pair of which a part was not read for so long is not known to be OK."""
    latency_objective: Duration = Field(default=1.0, json_schema_extra={"default": "1s"})
    """An event is late if it is not on a node so long after the head took it."""
    window: Duration = Field(default=60.0, json_schema_extra={"default": "1m"})
    """Over which latencies are summed up."""
    canary: Duration | None = None
    """How long a head without writes waits before it writes an event of its own to `$canary`; else never."""

    _password: SecretStr | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits(self) -> VerifyConfig:
        if self.password_file is not None and self.user is None:
            raise ValueError("password_file needs a user")
        return self

    def with_password(self, password: str) -> VerifyConfig:
        verify = self.model_copy()
        verify._password = SecretStr(password)
        return verify

    def login(self, dsn: Dsn) -> Dsn:
        """The database for the verifier, as its own user if it has one."""
        return dsn if self.user is None else replace(dsn, user=self.user, password=self._password)


class Config(Section):
    """A whole chain. `nodes` is in the order of creation: head, middles, tail."""

    chain: Name
    """Name of the chain, for life."""
    registry: RegistryConfig
    """Where the chain's decisions and leases are kept."""
    nodes: tuple[NodeConfig, ...] = Field(min_length=1)
    """The nodes; their order at creation is head, middles, tail."""
    links: LinksConfig = Field(default_factory=LinksConfig)
    """How logs are copied from node to node."""
    client: ClientConfig = Field(default_factory=ClientConfig)
    """How applications write."""
    lease: LeaseConfig = Field(default_factory=LeaseConfig)
    """The head's right to take writes, for a limited time; the ground of automatic failover."""
    automation: AutomationConfig = Field(default_factory=AutomationConfig)
    """What a controller may do by itself."""
    verify: VerifyConfig = Field(default_factory=VerifyConfig)
    """How copies are proven to be complete, equal and in time."""
    drills: Literal["forbidden", "allowed"] = "forbidden"
    """Whether faults may be injected into this chain."""

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        # Only then what a controller can see of a lease is no gap to it (`chain.lease.LeaseWatch`).
        if self.lease.enabled and self.automation.every > self.lease.duration / 4:
            raise ValueError("automation.every must be at most a quarter of lease.duration")
        if self.automation.lost_after < 2 * self.automation.every:
            raise ValueError("automation.lost_after must be at least twice automation.every")
        unknown = set(self.automation.never) - {node.name for node in self.nodes}
        if unknown:
            raise ValueError(f"automation.never names no node of this chain: {', '.join(sorted(unknown))}")
        return self

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value came from, by dotted key: `nodes[0].region` → `chain.yaml:12`.

        The others are `env CHAIN_LINKS_IDLE` and `default`. Empty for a Config not loaded from a file.
        """
        return MappingProxyType(dict(self._origins))

    def with_origins(self, origins: Mapping[str, str]) -> Config:
        config = self.model_copy()
        config._origins = dict(origins)
        return config

    def node(self, name: str) -> NodeConfig:
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise BadInput(f"chain {self.chain!r} has no node {name!r}", hint=f"its nodes are {known}")


def show(config: Config) -> dict[str, Any]:
    """The configuration as chain.yaml would say it, defaults included and passwords masked."""
    return config.model_dump(mode="json", exclude_none=True)
