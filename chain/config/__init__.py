"""The configuration `chain.yaml`: a closed schema, read once, immutable afterwards.

    from chain.config import load_config
    config = load_config(Path("chain.yaml"), os.environ)
    config.node("east-1").dsn.reveal()

A value comes from the environment, else from the file, else from its default; `Config.origins`
says which. Everything that is wrong is reported at once, as one BadConfig, with lines. Passwords
are in `Dsn` only, which shows them to nobody but the caller of `reveal`.
"""

from chain.config.dsn import Dsn
from chain.config.load import load_config
from chain.config.models import (
    AutomationConfig,
    ClientConfig,
    Config,
    LeaseConfig,
    LinksConfig,
    NodeConfig,
    RegistryConfig,
    VerifyConfig,
    show,
)
from chain.config.schema import config_schema
from chain.config.values import Address

__all__ = [
    "Address",
    "AutomationConfig",
    "ClientConfig",
    "Config",
    "Dsn",
    "LeaseConfig",
    "LinksConfig",
    "NodeConfig",
    "RegistryConfig",
    "VerifyConfig",
    "config_schema",
    "load_config",
    "show",
]
