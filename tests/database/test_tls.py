"""A database behind TLS: the certificate is checked by both drivers, and a stranger's is refused."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from configs.settings import Settings
from tasks import database
from tasks.errors import DependencyDown
from tasks.local_stack import LocalPostgres, find_postgres
from tasks.stack import connected, prefect_options

_KERBEROS_PLEASE = bytes.fromhex("0000000804d21630")
_TLS_PLEASE = bytes.fromhex("0000000804d2162f")


class Gate:
    """An address on this machine at which the test server speaks TLS, as a server of one's own would."""

    def __init__(self, server: LocalPostgres, certificate: Path) -> None:
        self._socket = server.socket_dir / f".s.PGSQL.{server.port}"
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self.port, self.in_clear, self.in_tls = 0, 0, 0
        self._loop = asyncio.new_event_loop()
        self._stands = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._stands.wait(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._open())
        self._stands.set()
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _open(self) -> None:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readexactly(8)
            if asked == _KERBEROS_PLEASE:
                writer.write(b"N")
                asked = await reader.readexactly(8)
            if asked != _TLS_PLEASE:
                self.in_clear += 1
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.in_tls += 1
            inner = await asyncio.open_unix_connection(str(self._socket))
            await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            return  # the client went away, as one that does not trust the certificate does
        finally:
            writer.close()

    def close(self) -> None:
        """Take the address down."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while content := await source.read(65_536):
        target.write(content)
        await target.drain()
    target.close()


def _certificate(path: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def gate(prepared: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, Path]]:
    """The test server behind TLS, and the certificate to trust."""
    server = find_postgres(prepared.home)
    if server is None:
        pytest.fail("the test server is not running")
    certificate = _certificate(tmp_path_factory.mktemp("tls") / "own.pem")
    with closing(Gate(server, certificate)) as made:
        yield made, certificate


def _settings(prepared: Settings, gate: Gate, trusted: Path) -> Settings:
    url = f"postgresql://kontor_admin@127.0.0.1:{gate.port}/kontor?sslmode=verify-full&sslrootcert={trusted}"
    return Settings(home=prepared.home, database_url=SecretStr(url))


def test_flows_work_through_tls_and_refuse_a_stranger(
    prepared: Settings, gate: tuple[Gate, Path], tmp_path: Path
) -> None:
    """With ``sslmode=verify-full`` the trusted server is worked with, one with another certificate is not."""
    place, certificate = gate
    before = place.in_tls
    with connected(_settings(prepared, place, certificate)) as connection:
        assert connection.exec_driver_sql("select current_user").scalar() == "kontor_flows"
    assert place.in_tls > before

    stranger = _settings(prepared, place, _certificate(tmp_path / "stranger.pem"))
    with pytest.raises(DependencyDown), connected(stranger):
        pass
    assert place.in_clear == 0


async def _ask_as_prefect_does(url: str) -> str:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return str(await connection.scalar(text("select current_database()")))
    finally:
        await engine.dispose()


def test_prefects_own_driver_takes_the_same_settings(
    prepared: Settings, gate: tuple[Gate, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What KONTOR_DATABASE_URL says of TLS holds for Prefect's server too, which uses another driver."""
    place, certificate = gate
    trusting, wary = (_settings(prepared, place, it) for it in (certificate, _certificate(tmp_path / "stranger.pem")))
    for name, value in prefect_options(trusting).items():
        monkeypatch.setenv(name, value)
    assert asyncio.run(_ask_as_prefect_does(database.prefect_database_url(trusting))) == "prefect"
    for name, value in prefect_options(wary).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(_ask_as_prefect_does(database.prefect_database_url(wary)))
    assert place.in_clear == 0
