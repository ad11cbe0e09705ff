"""A whole Flower deployment on this machine: own certificates, TLS, node authentication, real processes."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import localgd

BIN = Path(sys.executable).parent
PEM, NONE = serialization.Encoding.PEM, serialization.NoEncryption()
APP = Path(__file__).parents[2] / "examples" / "flower"


def certificate(name, issuer, key):
    def called(who):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def write_certificates(folder):
    """ca.crt, server.pem and server.key, good for 127.0.0.1 and a day."""
    ca_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    ski = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = x509.KeyUsage(
        digital_signature=False, key_cert_sign=True, crl_sign=True, decipher_only=False, **dict.fromkeys(unused, False)
    )
    ca = certificate("test CA", "test CA", ca_key)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(usage, critical=True).add_extension(ski, critical=False).sign(ca_key, hashes.SHA384())
    here = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = certificate("localhost", "test CA", key)
    own = own.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    own = own.add_extension(here, critical=False)
    own = own.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    own = own.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False).sign(
        ca_key, hashes.SHA384()
    )
    (folder / "ca.crt").write_bytes(ca.public_bytes(PEM))
    (folder / "server.pem").write_bytes(own.public_bytes(PEM))
    (folder / "server.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, NONE))
    (folder / "server.key").chmod(0o600)


def write_node_key(path):
    """An OpenSSH key pair: path and path.pub."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, NONE))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Fleet:
    """SuperLink and SuperNodes, one for each node-config; ends what it started, and nothing else."""

    def __init__(self, folder, configs):
        self.folder, self.configs = Path(folder).resolve(), list(configs)
        self.port, self.processes = free_port(), {}
        write_certificates(self.folder)
        home = self.home("superlink")
        lab = f'[superlink.lab]\naddress = "127.0.0.1:{self.port}"\nroot-certificates = "{self.folder / "ca.crt"}"\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "lab"\n\n{lab}')
        calm = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env = calm | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # Flower starts its own commands by name
            "PYTHONPATH": os.pathsep.join([str(Path(localgd.__file__).parents[1]), str(Path(__file__).parents[1])]),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def home(self, name):
        """Each process has its own: two that unpack one app into one place get into each other's way."""
        path = self.folder / f"home-{name}"
        path.mkdir(exist_ok=True)
        return path

    def start(self, name, program, *args):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(BIN / program), *args],
                env=self.env | {"FLWR_HOME": str(self.home(name))},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def superlink(self):
        tls = ("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
        self.start(
            *("superlink", "flower-superlink", "--host", "127.0.0.1", "--port", str(self.port), *tls),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        )
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        opener = urllib.request.build_opener(*handlers)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if opener.open(f"https://127.0.0.1:{self.port}/health", timeout=1).status == 200:
                    return
            except OSError:
                assert self.processes["superlink"].poll() is None, self.log("superlink")
                time.sleep(0.1)
        raise TimeoutError(self.log("superlink"))

    def supernode(self, name, config):
        self.start(
            *(name, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}", "--root-certificates", "ca.crt"),
            *("--auth-supernode-private-key", f"key-{name}", "--host", "127.0.0.1", "--port", str(free_port())),
            *("--node-config", " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())),
        )

    def again(self, name):
        """Stop a SuperNode, and start it anew."""
        self.end(name)
        self.supernode(name, self.configs[int(name)])

    def flwr(self, *args):
        """The command's last JSON object."""
        done = subprocess.run(
            [str(BIN / "flwr"), *args, "--format", "json"],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "{" in done.stdout, (args, done.stdout, done.stderr)
        return json.loads(done.stdout[done.stdout.index("{") :])

    def up(self):
        self.superlink()
        for place, config in enumerate(self.configs):
            write_node_key(self.folder / f"key-{place}")
            self.flwr("supernode", "register", f"key-{place}.pub", "lab", "--name", f"node-{place}")
            self.supernode(f"{place}", config)

    def run(self, app=APP, **config):
        words = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())
        return self.flwr("run", str(app), "lab", "--run-config", words)["run-id"]

    def told(self, run_id):
        """What the ServerApp has logged, and the end of what everybody else has."""
        words = [str(BIN / "flwr"), "log", str(run_id), "lab", "--show"]
        said = subprocess.run(
            words, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        ).stdout[-5000:]
        return "\n".join([said, *(f"--- {name}\n{self.log(name)[-2000:]}" for name in sorted(self.processes))])

    def status(self, run_id):
        return self.flwr("list", "lab", "--run-id", str(run_id))["runs"][0]["status"]

    def wait(self, run_id, seconds, made):
        """How the run ended. One that ends well makes this path: every other look is a process, on the nodes' cores."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(run_id)
            if status.startswith("finished"):
                return status
            again = time.monotonic() + 15.0
            while time.monotonic() < again and not made.exists():
                time.sleep(0.2)
            time.sleep(1.0)
        raise TimeoutError(f"{status}: {self.log('superlink')[-4000:]}")

    def end(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group, in which nobody else is
        process.wait(15)

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def down(self):
        for name in sorted(self.processes):  # the SuperLink last
            self.end(name, signal.SIGINT)

    def __exit__(self, *_):
        self.down()
