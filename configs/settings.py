"""Settings of one installation: environment variables ``KONTOR_*`` or a ``.env`` file.

Built by :func:`load_settings`, never at import, so that a wrong value is reported in words and a test can
have its own. Secrets are ``SecretStr`` and are not printed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import UsageError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _known_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name!r} is not a time zone; expected a name such as Europe/Sofia") from error
    return name


def _known_mail_mode(mode: str) -> str:
    address = mode.removeprefix("redirect:")
    if mode in ("hold", "live") or (address != mode and "@" in address):
        return mode
    raise ValueError(f"{mode!r} is not a mail mode; expected hold, live or redirect:<address>")


def _reachable_dask(address: str | None) -> str | None:
    # What is sent there is code to whoever listens, and settings with their secrets: never in clear over a network.
    if address is None or address == "local" or re.fullmatch(_DASK_ADDRESS, address):
        return address
    raise ValueError(
        "this is no way to Dask; expected local, tls://<host>:<port>, or tcp://127.0.0.1:<port> for a scheduler"
        " of this machine"
    )


_DASK_ADDRESS = r"tls://[^@/\s]+:\d+|tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+"


class Settings(BaseSettings):
    """What an operator may set; every field is the variable ``KONTOR_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="KONTOR_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(
        default=PROJECT_ROOT / ".kontor",
        description="Folder for the embedded database, the inbox and outputs.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="Any PostgreSQL 17 or newer; empty means the embedded one under KONTOR_HOME.",
    )
    inbox: Path | None = Field(default=None, description="Where feeds arrive; default KONTOR_HOME/inbox.")
    business_timezone: Annotated[str, AfterValidator(_known_time_zone)] = Field(
        default="Europe/Sofia", description="The zone in which 'today' is decided."
    )
    traces_url: str | None = Field(
        default=None,
        pattern="^https?://[^@]+$",
        description="Collector of OpenTelemetry's traces by OTLP over HTTP, such as http://127.0.0.1:4318; none: none.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Shares, each a process, into which a heavy step, such as sending mails, may divide its work.",
    )
    dask: Annotated[str | None, AfterValidator(_reachable_dask)] = Field(
        default=None,
        description="Who takes those shares instead of processes: Dask's scheduler at tls://<host>:<port>, one of this"
        " machine at tcp://127.0.0.1:<port>, or local: workers started for the step; none: processes.",
    )
    start_timeout_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="How long to wait for the embedded database to start or recover."
    )
    prefect_host: str = Field(
        default="127.0.0.1",
        description="Where Prefect's server listens. Any other address than loopback takes a password.",
    )
    prefect_port: int | None = Field(
        default=None, ge=1, le=65_535, description="The port it listens on; default a free one, the same each time."
    )
    prefect_auth_file: Path | None = Field(
        default=None, description="File with user:password that Prefect's server asks for, readable by its owner alone."
    )
    prefect_history_days: int = Field(
        default=90,
        ge=2,
        le=3_650,
        description="How long Prefect keeps ended runs with their logs and artifacts; Kontor's own ledger stays.",
    )

    mail_mode: Annotated[str, AfterValidator(_known_mail_mode)] = Field(
        default="hold",
        description="hold: write each mail as a file and send none; redirect:<address>: send all to it; live: send.",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        description="smtp://user:password@host:587 (STARTTLS, verified), smtps://host:465, or smtp://host:25?tls=none.",
    )
    smtp_ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) to trust for the mail server; default the system's."
    )
    smtp_timeout_seconds: float = Field(
        default=60.0, gt=0, le=600, description="How long the mail server may take to answer a command."
    )
    smtp_answer_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        le=3_600,
        description="How long it may take to answer the content of a message; RFC 5321 asks for ten minutes.",
    )
    mail_from: str | None = Field(default=None, description="Who mails come from: Name <address>.")
    mail_reply_to: str | None = Field(
        default=None, description="Where answers go when a customer's owner has no address; default KONTOR_MAIL_FROM."
    )
    bounces: Path | None = Field(
        default=None, description="Maildir into which returned mails are delivered; default KONTOR_HOME/bounces."
    )
    bounces_url: SecretStr | None = Field(
        default=None,
        description="Mailbox of returned mails by IMAP: imaps://user:password@host:993/FOLDER, or imap:// (STARTTLS).",
    )
    bounces_password_file: Path | None = Field(
        default=None, description="File with that mailbox's password, readable by its owner alone."
    )
    bounces_ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) to trust for that mailbox's server; default the system's."
    )
    dkim_key_file: Path | None = Field(
        default=None, description="Private key (PEM, readable by its owner alone) that signs mails; none: unsigned."
    )
    dkim_selector: str | None = Field(default=None, description="The selector that the key is published under.")
    dkim_domain: str | None = Field(default=None, description="The domain that the key is published for.")
    finance_emails: str = Field(default="", description="Who receives finance's reports; several with commas.")
    finance_language: Literal["en", "bg", "pl", "nb", "sv"] = Field(
        default="en", description="The language of finance's reports."
    )
    catalog_emails: str = Field(
        default="", description="Who answers for the product catalogue; several with commas; none: the engineers."
    )
    data_protection_emails: str = Field(
        default="", description="Who answers for data protection; several with commas; none: the engineers."
    )
    engineer_emails: str = Field(default="", description="Who receives alerts about runs; several with commas.")

    backup_target: SecretStr | None = Field(
        default=None, description="Where backups go: a folder, s3://bucket/path, sftp://…; default KONTOR_HOME/backups."
    )
    backup_target_options: SecretStr = Field(
        default=SecretStr("{}"), description="Options of the target's fsspec file system as JSON, such as its keys."
    )
    backup_identity: Path | None = Field(
        default=None, description="File with the private age key, for checks and restores; default in KONTOR_HOME/keys."
    )
    backup_wal_limit_mb: int = Field(
        default=4096, ge=64, description="How much WAL the server may keep for a receiver that is away, in MB."
    )

    backup_engine: Literal["core", "pgbackrest"] = Field(
        default="core", description="core backs up the embedded database; pgbackrest drives that program for your own."
    )
    pgbackrest_stanza: str = Field(
        default="kontor", pattern=r"^[A-Za-z0-9_-]+$", description="What pgBackRest calls the server that it backs up."
    )
    pgbackrest_config: Path | None = Field(
        default=None, description="pgBackRest's configuration; default: the one of `kontor backup setup`."
    )

    @field_validator(
        "home",
        "inbox",
        "bounces",
        "bounces_password_file",
        "bounces_ca_file",
        "smtp_ca_file",
        "dkim_key_file",
        "prefect_auth_file",
        "pgbackrest_config",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().resolve() if value is not None else None

    @property
    def shares(self) -> int:
        """How many shares heavy work has, the run's own among them; with Dask alone two at least, one a processor."""
        if self.dask is None or "processes" in self.model_fields_set:
            return self.processes
        return max(2, os.cpu_count() or 1)

    @property
    def inbox_path(self) -> Path:
        """The inbox folder, whether set or default."""
        return self.inbox or self.home / "inbox"

    @property
    def bounces_path(self) -> Path:
        """The maildir of returned mails, whether set or default."""
        return self.bounces or self.home / "bounces"


def load_settings() -> Settings:
    """Return the settings in force.

    Raises:
        UsageError: naming every wrong variable at once, with what was expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        culprits = "".join(
            f"\n  - KONTOR_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors()
        )
        raise UsageError(
            f"{error.error_count()} setting(s) are wrong:{culprits}",
            hint="Correct them in the environment or in .env and run the command again.",
        ) from error
