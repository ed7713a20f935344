"""Where a database is and how to log in. Shows its password only to the caller of `reveal`.

The accepted form is narrower than libpq's: one host, a database, and two parameters. Drivers take
parameters that load files, run plugins or redirect the connection (the class of CVE-2023-25194),
so what isn't on the list is refused here, before a driver sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from urllib.parse import parse_qsl, quote, unquote

from pydantic import SecretStr

PARAMETERS = ("sslmode", "sslrootcert")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class Dsn:
    """A Postgres database. `str` and `repr` mask the password; equality includes it."""

    host: str  # a name, an address without brackets, or the directory of a Unix socket
    port: int
    database: str
    user: str | None = None
    password: SecretStr | None = None  # not a str: whatever walks the fields would show it
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read a `postgresql://` URL. ValueError says what is wrong and never repeats the text."""
        scheme, separator, _ = text.partition("://")
        if not separator or scheme not in ("postgresql", "postgres"):
            raise ValueError("should begin with postgresql://")
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError(
                "should be postgresql://user@host:port/database; "
                "in a user or a password, write / ? # @ and spaces percent-encoded"
            )
        if not match["host"]:
            raise ValueError("has no host")
        if not match["database"]:
            raise ValueError("has no database")
        port = int(match["port"] or DEFAULT_PORT)
        if not 1 <= port <= 65535:
            raise ValueError("has a port outside 1 to 65535")
        return cls(
            host=_host(match["host"]),
            port=port,
            database=_decode(match["database"]),
            user=_decode(match["user"]) if match["user"] else None,
            password=SecretStr(_decode(match["password"])) if match["password"] else None,
            parameters=_parameters(match["query"] or ""),
        )

    @property
    def place(self) -> tuple[str, int, str]:
        """What makes two DSNs the same database, whoever logs in."""
        host = self.host if self.host.startswith("/") else self.host.lower()
        return (host, self.port, self.database)

    def with_password(self, password: str) -> Dsn:
        return replace(self, password=SecretStr(password))

    def reveal(self) -> str:
        """The whole DSN with its password, each part percent-encoded. For drivers, never for logs."""
        if self.password is None:
            return self._url(None)
        return self._url(quote(self.password.get_secret_value(), safe=""))

    def __str__(self) -> str:
        return self._url(None if self.password is None else "***")

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"

    def _url(self, password: str | None) -> str:
        login = quote(self.user or "", safe="")
        if password is not None:
            login += f":{password}"
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.parameters)
        return (
            f"postgresql://{login}{'@' if login else ''}{host}:{self.port}"
            f"/{quote(self.database, safe='')}{'?' if query else ''}{query}"
        )


# Not urlsplit: it drops tabs and newlines silently, lowers the case of socket directories, and its
# errors quote the login.
_URL = re.compile(
    r"(?:postgresql|postgres)://"
    r"(?:(?P<user>[^:@/?#\x00-\x20\x7f]*)(?::(?P<password>[^@/?#\x00-\x20\x7f]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._%-]*)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[^@/?#\x00-\x20\x7f]*))?"
    r"(?:\?(?P<query>[^@?#\x00-\x20\x7f]*))?"
)


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("has a host in brackets that is no IPv6 address") from None
    host = _decode(text)
    if not host.startswith("/") and not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("has a host that is neither a name, an address nor a socket directory")
    return host


def _parameters(query: str) -> tuple[tuple[str, str], ...]:
    if not query:
        return ()
    try:
        pairs = parse_qsl(query, strict_parsing=True, errors="strict", max_num_fields=10)
    except ValueError:
        raise ValueError("has parameters that can't be read after the '?'") from None
    seen: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            # Only a plain word is repeated: anything else may be a piece of a password.
            shown = f" {name!r}" if re.fullmatch(r"[a-z_]{1,40}", name) else ""
            raise ValueError(f"has a parameter{shown} other than {' and '.join(PARAMETERS)}")
        if name in seen:
            raise ValueError(f"has the parameter {name!r} twice")
        if name == "sslmode" and value not in SSL_MODES:
            raise ValueError(f"has an sslmode other than {', '.join(SSL_MODES)}")
        if "\0" in value:
            raise ValueError("has a zero byte in it")
        seen[name] = value
    return tuple(seen.items())


def _decode(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a percent-encoding that is not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("has a zero byte in it")
    return decoded
