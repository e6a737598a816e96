"""How a broker is shown who we are, and how we know that it is the broker.

Secrets are read from files or the environment when they are needed, and stay out of every
text that is stored or shown.
"""

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

PASSWORD_VARIABLE = "LAMELLA_MQTT_PASSWORD"  # noqa: S105 - the name of a variable, no secret
LEAST_KEY_BYTES = 32
MOST_SECRET_BYTES = 4096
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class BadCredentials(ValueError):
    """A secret or a certificate cannot be used; the message says which, and what would do."""


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the other side is not who it should be; paho would leave it open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as ssl has it
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSecurity:
    """What a broker asks of a client, and what we ask of a broker and of commands.

    Parameters
    ----------
    username
        For the broker; empty for a broker that asks for none.
    password_file
        Holds the password in its first line. The environment variable
        LAMELLA_MQTT_PASSWORD comes first.
    ca_file
        Certificates that the broker's own is checked with; its presence means TLS.
    cert_file, key_file
        Our own certificate, for a broker that wants one.
    command_key_file
        Shared by those who may command; without it no command is heard.
    """

    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    command_key_file: Path | None = None

    @property
    def encrypted(self) -> bool:
        """True when the connection is made with TLS."""
        return self.ca_file is not None

    def refuse_unfit(self, host: str) -> None:
        """Raise BadCredentials where parts do not go together, or would give a secret away."""
        if self.password_file is not None and not self.username:
            raise BadCredentials("password_file has no username to belong to; name one")
        if (self.cert_file is None) != (self.key_file is None):
            raise BadCredentials("cert_file and key_file belong together; name both or neither")
        if self.cert_file is not None and not self.encrypted:
            raise BadCredentials("cert_file needs ca_file, with which the broker is checked")
        if self.username and not self.encrypted and host not in LOOPBACK:
            raise BadCredentials(
                f"the password would go to {host} in plain text; name a ca_file for TLS"
            )

    def password(self) -> str | None:
        """Return the password; None where there is no user name.

        Raises
        ------
        BadCredentials
            It is nowhere to be found, or others may read its file.
        """
        if not self.username:
            return None
        if (given := os.environ.get(PASSWORD_VARIABLE)) is not None:
            return given
        if self.password_file is None:
            raise BadCredentials(
                f"no password for {self.username!r}: set {PASSWORD_VARIABLE} or name a "
                "password_file"
            )
        text = _read_secret(self.password_file).decode("utf-8", errors="replace")
        if not (lines := text.splitlines()):
            raise BadCredentials(f"{self.password_file}: is empty; its first line is the password")
        return lines[0]

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what TLS needs; None for a plain connection.

        Raises
        ------
        BadCredentials
            A file is missing or is no certificate.
        """
        if self.ca_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.sslsocket_class = _TidySocket
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # an SSLError is one, too
            files = [str(f) for f in (self.ca_file, self.cert_file, self.key_file) if f is not None]
            raise BadCredentials(
                f"TLS cannot be set up from {', '.join(files)} ({error.strerror or error}); "
                "they are PEM files that this user can read"
            ) from error
        return context

    def command_key(self) -> bytes | None:
        """Return the key that signs commands; None where commands are not heard.

        Raises
        ------
        BadCredentials
            It is too short, or others may read its file.
        """
        if self.command_key_file is None:
            return None
        key = _read_secret(self.command_key_file).strip()
        if len(key) < LEAST_KEY_BYTES:
            raise BadCredentials(
                f"{self.command_key_file}: a key of {len(key)} bytes; {LEAST_KEY_BYTES} or more "
                "will do, such as from: openssl rand -hex 32"
            )
        return key


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            # Windows has no such bits.
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise BadCredentials(f"{path}: others may read it; run: chmod 600 {path}")
            secret = file.read(MOST_SECRET_BYTES + 1)
    except OSError as error:
        raise BadCredentials(f"{path}: cannot be read ({error.strerror})") from error
    if len(secret) > MOST_SECRET_BYTES:
        raise BadCredentials(f"{path}: is too large to be a secret")
    return secret
