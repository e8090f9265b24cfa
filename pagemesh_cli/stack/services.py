"""How the three services are run out of a checkout: which environment each gets, and no more."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.checkout import SERVICES, WORKER
from pagemesh_cli.stack.credentials import AdminKey, Credentials
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.ports import LOOPBACK
from pagemesh_cli.stack.process import Process, ProcessSpec, describe_exit, leashed, wait_until
from pagemesh_cli.stack.settings import CLIENT_SETTINGS, refusal

DATABASE = "pagemesh"
TENANT = "local"
"""The tenant of an embedded stack."""
DRAIN_S = 1.5
"""How long a service that stops waits for the edge to see it, which looks every second; PAGEMESH_DRAIN_S overrides."""
_MIGRATE_TIMEOUT_S = 120.0
_BOOTSTRAP_TIMEOUT_S = 60.0
# Drain and shut-down of a service as configured, and this much for the rest.
_STOP_MARGIN_S = 5.0
_PROVIDERS = ("PAGEMESH_MISTRAL_", "PAGEMESH_PROVIDER_", "PAGEMESH_EMBEDDING_")
"""Settings that begin so are the summarizer's alone: keys of models' providers, and ways to them."""
_PROXY_SETTINGS = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class ServiceRunner:
    """Knows every setting that the stack gives to its services."""

    checkout: Path
    data: DataDir
    authority: CertificateAuthority
    credentials: Credentials
    ports: Mapping[str, int]
    inherited: Mapping[str, str]
    """The caller's environment. Its PAGEMESH_ settings reach the services, unless the stack itself decides them."""

    def spec(self, service: str) -> ProcessSpec:
        """How to serve; of WORKER how to do jobs."""
        role = (WORKER,) if service == WORKER else ()
        return ProcessSpec(
            name=service,
            command=(sys.executable, "-m", f"services.{_package(service)}", *role),
            log=self.data.logs / f"{service}.log",
            environment=self.environment(service),
            directory=self.checkout,
            stop_timeout_s=self._stop_timeout_s(),
        )

    def migrate(self, services: Sequence[str] = SERVICES) -> None:
        """Brings the schema of each service to its newest version, all at the same time."""
        running = []
        for service in services:
            command = (sys.executable, "-m", f"services.{service}", "migrate")
            name = f"{service}-migrate"
            running.append(
                Process(
                    ProcessSpec(
                        name=name,
                        command=command,
                        log=self.data.logs / f"{name}.log",
                        environment=self.environment(service),
                        directory=self.checkout,
                    )
                )
            )
        try:
            for process in running:
                _wait_success(process, timeout_s=_MIGRATE_TIMEOUT_S)
        except StackError as error:
            refused = refusal(running)
            if refused is None:
                raise
            raise StackError(refused) from error
        finally:
            for process in running:
                process.stop()

    def bootstrap(self, tenant: str = TENANT) -> AdminKey:
        """Makes the tenant, where it is not there yet, and a new key with every scope."""
        command = (sys.executable, "-m", "services.ledger", "bootstrap", "--tenant", tenant)
        result = subprocess.run(  # noqa: S603 - a fixed command
            leashed(command, account=None, orphan_signal=signal.SIGKILL),
            env=self.environment("ledger"),
            cwd=self.checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BOOTSTRAP_TIMEOUT_S,
        )
        if result.returncode != 0:
            raise StackError(f"The ledger could not make the first key: {result.stderr.strip()[-2000:]}")
        answer = json.loads(result.stdout.strip().splitlines()[-1])
        return AdminKey(tenant=answer["tenant"], api_key=answer["api_key"], secret=answer["secret"])

    def run(self, service: str, arguments: Sequence[str]) -> int:
        """Runs one command of a service here, with the caller's own output; answers its exit code."""
        command = (sys.executable, "-m", f"services.{service}", *arguments)
        return subprocess.run(  # noqa: S603 - our own program; the arguments are the operator's
            leashed(command, account=None, orphan_signal=signal.SIGTERM),
            env=self.environment(service),
            cwd=self.checkout,
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode

    def environment(self, service: str) -> dict[str, str]:
        """The whole environment of a service's process."""
        listen = {
            "PAGEMESH_GRPC_LISTEN": f"{LOOPBACK}:{self.ports[service]}",
            "PAGEMESH_HTTP_LISTEN": f"{LOOPBACK}:{self.ports[f'{service}_http']}",
        }
        service = _package(service)
        return {
            **self._basics(),
            "PAGEMESH_DRAIN_S": f"{DRAIN_S:g}",
            **self._passed_on(service),
            **listen,
            "PAGEMESH_TLS_DIR": str(self.authority.tls_dir(service)),
            "PAGEMESH_TRUST_DOMAIN": self.authority.trust_domain,
            "PAGEMESH_DATABASE_URL": self._database_url(service),
            **self._own(service),
        }

    def _own(self, service: str) -> dict[str, str]:
        if service == "ledger":
            return {"PAGEMESH_KEY_PEPPER": self.credentials.key_pepper}
        if service == "extractor":
            own = self.data.folder("objects").as_uri()
            return {
                "PAGEMESH_OBJECT_STORE_URL": self.inherited.get("PAGEMESH_OBJECT_STORE_URL") or own,
                "PAGEMESH_SPOOL_DIR": str(self.data.folder("spool")),
                "PAGEMESH_SUMMARIZER_TARGET": f"{LOOPBACK}:{self.ports['summarizer']}",
                "PAGEMESH_LEDGER_TARGET": f"{LOOPBACK}:{self.ports['ledger']}",
            }
        return {
            "PAGEMESH_REDIS_URL": f"redis://:{self.credentials.valkey_password}@{LOOPBACK}:{self.ports['valkey']}/0",
            "PAGEMESH_EXTRACTOR_TARGET": f"{LOOPBACK}:{self.ports['extractor']}",
            "PAGEMESH_LEDGER_TARGET": f"{LOOPBACK}:{self.ports['ledger']}",
        }

    def _database_url(self, service: str) -> str:
        password = self.credentials.role_passwords()[service]
        return f"postgresql://{service}:{password}@{LOOPBACK}:{self.ports['postgres']}/{DATABASE}"

    def _basics(self) -> dict[str, str]:
        # HOME and TMPDIR: libraries that keep caches of their own look there.
        kept = {name: self.inherited[name] for name in ("HOME", "TMPDIR") if name in self.inherited}
        # gRPC's own log lines are no JSON; what they tell of connections is in our logs and metrics, too.
        quiet = {"GRPC_VERBOSITY": "ERROR"}
        return {**kept, **quiet, "PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1"}

    def _passed_on(self, service: str) -> dict[str, str]:
        """The caller's own settings; what is for one service, or for the way to its provider, reaches only that one."""
        settings = {
            name: value
            for name, value in self.inherited.items()
            if name.startswith("PAGEMESH_") and name not in CLIENT_SETTINGS
        }
        if service == "extractor":
            # Credentials and endpoint of an object store that is S3.
            settings |= {name: value for name, value in self.inherited.items() if name.startswith("AWS_")}
        if service != "summarizer":
            return {name: value for name, value in settings.items() if not name.startswith(_PROVIDERS)}
        proxies = {name: self.inherited[name] for name in _PROXY_SETTINGS if name in self.inherited}
        # The services' own calls on this machine must not go through the proxy.
        return {**settings, **proxies, "NO_PROXY": f"localhost,{LOOPBACK},{self.inherited.get('NO_PROXY', '')}"}

    def _stop_timeout_s(self) -> float:
        drain_s = _seconds(self.inherited, "PAGEMESH_DRAIN_S", DRAIN_S)
        return drain_s + _seconds(self.inherited, "PAGEMESH_SHUTDOWN_S", 20.0) + _STOP_MARGIN_S


def _package(service: str) -> str:
    """Which service's package, database role and identity it has."""
    return "summarizer" if service == WORKER else service


def _seconds(settings: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(settings.get(name, default))
    except ValueError:
        return default  # the service itself refuses it, with a better message


def _wait_success(process: Process, *, timeout_s: float) -> None:
    if not wait_until(lambda: process.exit_code() is not None, timeout_s=timeout_s):
        raise StackError(f"{process.spec.name} did not end within {timeout_s:g} s.{process.log_tail()}")
    if process.exit_code() != 0:
        raise StackError(f"{process.spec.name} {describe_exit(process.exit_code())}.{process.log_tail()}")
