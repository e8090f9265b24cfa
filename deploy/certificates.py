"""Makes or renews the certificates of a development CA below /pki, each readable by its own container's user alone.

Run again at any time: certificates that end soon are replaced while the services run. As root, once.
"""

import datetime as dt
import os
from pathlib import Path

from pagemesh_cli.stack.certificates import CertificateAuthority

# The users in deploy/Dockerfile. `operator` is for people; root may read it.
_USERS = {"edge": 101, "extractor": 10001, "summarizer": 10002, "ledger": 10003}


def main(directory: Path) -> None:
    authority = CertificateAuthority(directory)
    made = authority.ensure(now=dt.datetime.now(dt.UTC))
    for identity, user in _USERS.items():
        folder = authority.tls_dir(identity)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    print(f"new certificates: {', '.join(made) or 'none needed'}")


if __name__ == "__main__":
    main(Path("/pki"))
